package cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// followFlows runs flows until the test ends.
func followFlows(t *testing.T, s *cache.Store) *cache.Flows {
	t.Helper()
	f := s.NewFlows()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return f
}

func word(text string) cache.FlowPart {
	delta, _ := json.Marshal(map[string]string{"content": text}) // a string
	return cache.FlowPart{Delta: delta}
}

func say(t *testing.T, w *cache.FlowWriter, words ...string) {
	t.Helper()
	for _, text := range words {
		if err := w.Add(word(text)); err != nil {
			t.Fatal(err)
		}
	}
}

// told reads pieces until the flow's end, or as many as there are words.
func told(t *testing.T, r *cache.FlowReader, words int) (text, end string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var d cache.Draft
	for i := 0; words == 0 || i < words; i++ {
		p, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("after %q: %v", d.Text(), err)
		}
		if p.End != "" {
			return d.Text(), p.End
		}
		if p.Number == 0 {
			d = cache.Draft{}
		}
		if err := d.Add(p.Part); err != nil {
			t.Fatal(err)
		}
	}
	return d.Text(), ""
}

func never(t *testing.T) func() {
	t.Helper()
	return func() { t.Error("the flow was lost") }
}

// Who comes late first gets what there is; all get the same, once and in order.
func TestFlowReachesAllWhoFollow(t *testing.T) {
	for _, keys := range []string{"", strings.Repeat("ab", 32)} {
		t.Run(fmt.Sprintf("sealed %v", keys != ""), func(t *testing.T) {
			r := testserver.NewRedis(t)
			sealing, err := cache.ParseAnswerKeys(keys)
			if err != nil {
				t.Fatal(err)
			}
			s, other := newStore(t, r, cache.Options{AIKeys: sealing}), newStore(t, r, cache.Options{AIKeys: sealing})
			flows := followFlows(t, other)
			l := lease(t, s, answers(), "k")
			w := s.NewAnswers(answers()).Flow(t.Context(), l, never(t))
			early := flows.Follow("k")
			defer early.Close()
			say(t, w, "Salt", " and")
			if text, _ := told(t, early, 2); text != "Salt and" {
				t.Errorf("the early one heard %q", text)
			}
			late := flows.Follow("k")
			defer late.Close()
			say(t, w, " Light")
			if err := w.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Put(t.Context(), l, cache.Fill{Body: []byte(`{}`)}); err != nil {
				t.Fatal(err)
			}
			if err := w.End(t.Context(), cache.FlowDone); err != nil {
				t.Fatal(err)
			}
			last := flows.Follow("k")
			defer last.Close()
			if text, end := told(t, early, 0); text != " Light" || end != cache.FlowDone {
				t.Errorf("the early one heard %q, ended by %q", text, end)
			}
			for name, reader := range map[string]*cache.FlowReader{"late": late, "last": last} {
				if text, end := told(t, reader, 0); text != "Salt and Light" || end != cache.FlowDone {
					t.Errorf("the %s one heard %q, ended by %q", name, text, end)
				}
			}
			if raw := r.Client(t).XRange(t.Context(), "mythic:ai_flow:{k}", "-", "+").String(); strings.Contains(raw, "Salt") == (keys != "") {
				t.Errorf("the stream holds %q", raw)
			}
			if ttl := r.Client(t).PTTL(t.Context(), "mythic:ai_flow:{k}").Val(); ttl <= 0 || ttl > 2*time.Minute {
				t.Errorf("the flow is kept for %s", ttl)
			}
		})
	}
}

// A worker that was taken for dead adds nothing to what its successor tells.
func TestFlowIsOfOneGeneration(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	a := s.NewAnswers(answers())
	flows := followFlows(t, s)
	reader := flows.Follow("k")
	defer reader.Close()
	first, err := s.Lease(t.Context(), answers(), "k", 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	lost := make(chan struct{})
	dead := a.Flow(t.Context(), first, func() { close(lost) })
	say(t, dead, "Brine")
	if text, _ := told(t, reader, 1); text != "Brine" {
		t.Errorf("heard %q", text)
	}
	var second cache.Lease
	testserver.Eventually(t, "the lease runs out", func() (err error) {
		second, err = s.Lease(t.Context(), answers(), "k", time.Minute)
		return err
	})
	living := a.Flow(t.Context(), second, never(t))
	say(t, living, "Kelp")
	if text, _ := told(t, reader, 1); text != "Kelp" {
		t.Errorf("heard %q", text)
	}
	say(t, dead, " and foam")
	<-lost
	_ = dead.End(t.Context(), cache.FlowFailed+"lost") // goes nowhere
	say(t, living, " forest")
	if err := living.End(t.Context(), cache.FlowDone); err != nil {
		t.Fatal(err)
	}
	if text, end := told(t, reader, 0); text != " forest" || end != cache.FlowDone {
		t.Errorf("heard %q, ended by %q", text, end)
	}
	if n := r.Client(t).XLen(t.Context(), "mythic:ai_flow:{k}").Val(); n != 3 {
		t.Errorf("%d pieces are kept: not those of one generation", n)
	}
	late := flows.Follow("k")
	defer late.Close()
	if text, end := told(t, late, 0); text != "Kelp forest" || end != cache.FlowDone {
		t.Errorf("a late one heard %q, ended by %q", text, end)
	}
}

// Readers whose connection is cut miss nothing.
func TestFlowOutlivesItsSubscription(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	reader := followFlows(t, s).Follow("k")
	defer reader.Close()
	w := s.NewAnswers(answers()).Flow(t.Context(), lease(t, s, answers(), "k"), never(t))
	say(t, w, "a")
	told(t, reader, 1)
	var want strings.Builder
	for i := range 20 {
		text := fmt.Sprintf(" %d", i)
		want.WriteString(text)
		say(t, w, text)
		if i%5 == 0 {
			if err := r.Client(t).Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.End(t.Context(), cache.FlowDone); err != nil {
		t.Fatal(err)
	}
	if text, end := told(t, reader, 0); text != want.String() || end != cache.FlowDone {
		t.Errorf("heard %q, ended by %q", text, end)
	}
}

// What is forgotten while it is made is gone from Redis, and its readers are told.
func TestFlowIsErased(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	a := s.NewAnswers(answers())
	reader := followFlows(t, s).Follow("k")
	defer reader.Close()
	lost := make(chan struct{})
	w := a.Flow(t.Context(), lease(t, s, answers(), "k"), func() { close(lost) })
	say(t, w, "Brine")
	told(t, reader, 1)
	if err := a.Fail(t.Context(), "user", "k", cache.Failure{Reason: "it was away"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Invalidate(t.Context(), []cache.Change{{View: answers(), Key: "k"}}); err != nil {
		t.Fatal(err)
	}
	if err := a.Erase(t.Context(), "k", "another"); err != nil {
		t.Fatal(err)
	}
	if _, end := told(t, reader, 0); end != cache.FlowFailed+"forgotten" {
		t.Errorf("the flow ended by %q", end)
	}
	say(t, w, " again")
	<-lost
	client := r.Client(t)
	if raw := client.XRange(t.Context(), "mythic:ai_flow:{k}", "-", "+").String(); strings.Contains(raw, "Brine") || strings.Contains(raw, "again") {
		t.Errorf("the stream holds %q", raw)
	}
	if n := client.Exists(t.Context(), "mythic:ai_failed:{k}", "mythic:ai_flow:{another}").Val(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// What cannot be read is torn, not an error that stops the reader's server.
func TestFlowSealedByAnother(t *testing.T) {
	r := testserver.NewRedis(t)
	ours, err := cache.ParseAnswerKeys(strings.Repeat("ab", 32))
	if err != nil {
		t.Fatal(err)
	}
	s, blind := newStore(t, r, cache.Options{AIKeys: ours}), newStore(t, r, cache.Options{})
	w := s.NewAnswers(answers()).Flow(t.Context(), lease(t, s, answers(), "k"), never(t))
	say(t, w, "Brine")
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	reader := followFlows(t, blind).Follow("k")
	defer reader.Close()
	if p, err := reader.Next(t.Context()); !errors.Is(err, cache.ErrFlowTorn) {
		t.Errorf("it read %+v (%v)", p, err)
	}
}

func TestDraft(t *testing.T) {
	part := func(text string) (p cache.FlowPart) {
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	var d cache.Draft
	for _, text := range []string{
		`{"id":"c-1","model":"m","created":7,"system_fingerprint":"fp","delta":{"role":"assistant","content":null,"refusal":null}}`,
		`{"delta":{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"two","arguments":""}}]}}`,
		`{"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"one","arguments":"{\"x\""}}]}}`,
		`{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"arguments":":\"<&>\"}"}},{"index":1,"id":"","function":{"arguments":"{}"}}]}}`,
		`{"delta":{"reasoning_content":"well"},"logprobs":{"content":[{"token":"w","logprob":-0.10}],"refusal":null}}`,
		`{"delta":{"reasoning_content":", so"},"logprobs":{"content":[{"token":"x","logprob":-2}]}}`,
		`{"delta":{},"finish_reason":"tool_calls"}`,
		`{"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1}}}`,
	} {
		if err := d.Add(part(text)); err != nil {
			t.Fatal(err)
		}
	}
	a, err := d.Answer()
	if err != nil {
		t.Fatal(err)
	}
	body, err := a.Encode()
	const want = `{"key":"","model":"m","text":"","tool_calls":[` +
		`{"function":{"arguments":"{\"x\":\"<&>\"}","name":"one"},"id":"a","type":"function"},` +
		`{"function":{"arguments":"{}","name":"two"},"id":"b","type":"function"}],` +
		`"finish_reason":"tool_calls","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1}},` +
		`"created":7,"id":"c-1","system_fingerprint":"fp","no_text":true,` +
		`"logprobs":{"content":[{"logprob":-0.10,"token":"w"},{"logprob":-2,"token":"x"}],"refusal":null},"other":{"reasoning_content":"well, so"}}`
	if err != nil || string(body) != want {
		t.Errorf("put together it is\n%s, not\n%s (%v)", body, want, err)
	}
	if err := d.Add(cache.FlowPart{Delta: json.RawMessage(`["a secret"]`)}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("of a delta that is none it says %v", err)
	}
}
