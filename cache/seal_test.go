package cache_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

func answerKeys(t *testing.T, text string) cache.AnswerKeys {
	t.Helper()
	keys, err := cache.ParseAnswerKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestParseAnswerKeys(t *testing.T) {
	raw := strings.Repeat("k", 32)
	for _, text := range []string{
		"", " ", hex.EncodeToString([]byte(raw)), base64.StdEncoding.EncodeToString([]byte(raw)),
		base64.RawURLEncoding.EncodeToString([]byte(raw)) + ", " + strings.Repeat("AB", 32),
	} {
		answerKeys(t, text)
	}
	for _, text := range []string{"hunter2", raw, strings.Repeat("ab", 16), strings.Repeat("ab", 32) + ",", "hunter2," + strings.Repeat("ab", 32)} {
		if _, err := cache.ParseAnswerKeys(text); err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), raw) {
			t.Errorf("of %q it says %v", text, err)
		}
	}
}

// Answers are sealed at rest and in announcements; readers with the key see nothing of
// that, those without find nothing, and old keys open what they have sealed.
func TestAnswersAreSealed(t *testing.T) {
	r := testserver.NewRedis(t)
	first, second := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	metrics := prometheus.NewRegistry()
	open := newStore(t, r, cache.Options{AIKeys: answerKeys(t, first)})
	rotated := newStore(t, r, cache.Options{AIKeys: answerKeys(t, second+","+first)})
	other := newStore(t, r, cache.Options{AIKeys: answerKeys(t, second), Metrics: metrics})
	blind := newStore(t, r, cache.Options{})
	wait := listen(t, rotated).Wait("answers", "k")
	defer wait.Cancel()
	deaf := listen(t, blind).Wait("answers", "k")
	defer deaf.Cancel()
	put, err := open.Put(t.Context(), lease(t, open, answers(), "k"), cache.Fill{Body: []byte(`{"text":"Brine"}`), Owner: "me", Owned: true})
	if err != nil {
		t.Fatal(err)
	}
	// Nor is its digest there, by which a guess could be confirmed.
	sum := sha256.Sum256([]byte(`{"text":"Brine"}`))
	if raw := r.Client(t).Get(t.Context(), "mythic:answers:{k}").Val(); strings.Contains(raw, "Brine") || strings.Contains(raw, string(sum[:8])) {
		t.Errorf("Redis holds %q", raw)
	}
	if f := next(t, wait); string(f.Entry.Body) != `{"text":"Brine"}` || f.Entry.ETag != put.ETag {
		t.Errorf("announced %+v", f)
	}
	for _, s := range []*cache.Store{open, rotated} {
		got := read(t, s, cache.Query{View: answers(), Key: "k"})
		if got.Status != cache.Hit || string(got.Entry.Body) != `{"text":"Brine"}` || got.Entry.ETag != put.ETag || got.Entry.Owner != "me" {
			t.Errorf("it reads as %+v", got)
		}
	}
	for _, s := range []*cache.Store{other, blind} {
		if got := read(t, s, cache.Query{View: answers(), Key: "k"}); got.Status != cache.Miss {
			t.Errorf("without the key it reads as %+v", got)
		}
	}
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	unreadable := 0.0
	for _, f := range families {
		if f.GetName() == "mythic_cache_ai_unreadable_total" {
			unreadable = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	if unreadable != 1 {
		t.Errorf("%v could not be read", unreadable)
	}
	// Telling of it again gives the same bytes, and so the same ETag.
	got := read(t, rotated, cache.Query{View: answers(), Key: "k"})
	if err := rotated.Announce(t.Context(), got.Entry); err != nil {
		t.Fatal(err)
	}
	if f := next(t, wait); string(f.Entry.Body) != `{"text":"Brine"}` || f.Entry.ETag != put.ETag {
		t.Errorf("announced again it is %+v", f)
	}
	// Whoever has another key makes the answer anew, for those who have that.
	if _, err := other.Put(t.Context(), lease(t, other, answers(), "k"), cache.Fill{Body: []byte(`{"text":"Kelp"}`)}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, rotated, cache.Query{View: answers(), Key: "k"}); string(got.Entry.Body) != `{"text":"Kelp"}` {
		t.Errorf("it reads as %+v", got)
	}
	select {
	case f := <-deaf.C():
		t.Errorf("who has no key is told %+v", f)
	default:
	}
}

// What is sealed means nothing under another key of Redis, nor altered.
func TestSealsAreBound(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{AIKeys: answerKeys(t, strings.Repeat("ab", 32))})
	client := r.Client(t)
	if _, err := s.Put(t.Context(), lease(t, s, answers(), "mine"), cache.Fill{Body: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	raw := client.Get(t.Context(), "mythic:answers:{mine}").Val()
	altered := raw[:len(raw)-1] + string(raw[len(raw)-1]^1)
	for key, value := range map[string]string{"yours": raw, "mine": altered} {
		if err := client.Set(t.Context(), "mythic:answers:{"+key+"}", value, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, cache.Query{View: answers(), Key: key}); got.Status != cache.Miss || got.Entry.Body != nil {
			t.Errorf("%s reads as %+v", key, got)
		}
	}
}

// An answer from before there was a key is still one.
func TestUnsealedAnswersStay(t *testing.T) {
	r := testserver.NewRedis(t)
	before := newStore(t, r, cache.Options{})
	if _, err := before.Put(t.Context(), lease(t, before, answers(), "k"), cache.Fill{Body: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, r, cache.Options{AIKeys: answerKeys(t, strings.Repeat("ab", 32))})
	if got := read(t, s, cache.Query{View: answers(), Key: "k"}); got.Status != cache.Hit || string(got.Entry.Body) != `{}` {
		t.Errorf("it reads as %+v", got)
	}
}

func TestOneTimeKeys(t *testing.T) {
	request := []byte(`{"model":"m","messages":[]}`)
	shared, _, err := cache.AnswerKey("p", "s", request)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{shared: true}
	for _, c := range []struct{ scope, nonce string }{{"s", "1"}, {"s", "2"}, {"t", "1"}} {
		key, _, err := cache.OneTimeKey("p", c.scope, c.nonce, request)
		if err != nil || seen[key] || !cache.IsAnswerKey(key) {
			t.Errorf("the key of %v is %s (%v)", c, key, err)
		}
		seen[key] = true
	}
	if _, _, err := cache.OneTimeKey("p", "s", "", request); !errors.Is(err, cache.ErrRequest) {
		t.Errorf("without a nonce it says %v", err)
	}
}
