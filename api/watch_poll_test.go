package api

import (
	"bytes"
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestAPollAnswersAtOnceWhatTheClientLacks(t *testing.T) {
	w := begin(t)
	e := w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	w.get("/status/RUN1", "Prefer", "wait=30").wants(t, 200, map[string]string{"Preference-Applied": ""})
	w.get("/status/RUN1", "Prefer", "wait=30", "If-None-Match", `"other"`).wants(t, 200, map[string]string{
		"Preference-Applied": "wait=30", "ETag": regexp.QuoteMeta(e.ETag), "X-Cache": "HIT", "Cache-Control": "private, .*",
	})
	w.get("/status/RUN1", "Prefer", "respond-async", "If-None-Match", e.ETag).wants(t, 304, map[string]string{"Preference-Applied": ""})
	w.get("/status/RUN1", "Prefer", "wait=0", "If-None-Match", e.ETag).wants(t, 304, map[string]string{"Preference-Applied": ""})
	w.get("/status/RUN1", "Prefer", "wait=soon", "If-None-Match", e.ETag).wants(t, 400, nil)
	w.get("/status/RUN1", "Prefer", "wait=-1", "If-None-Match", e.ETag).wants(t, 400, nil)
}

// later sends a GET and gives its answer when it comes.
func (w *world) later(path string, headers ...string) <-chan *answer {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.url+path, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	answered := make(chan *answer, 1)
	go func() {
		a, err := send(r)
		if err != nil {
			w.t.Error(err)
		}
		answered <- a
	}()
	return answered
}

func TestParseWait(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "wait=5": 5 * time.Second, `respond-async, Wait = "7"; x=y`: 7 * time.Second, "wait=600": time.Minute, "wait=3, wait=9": 3 * time.Second, "waiting=5": 0,
	} {
		if got, err := parseWait([]string{text}); got != want || err != nil {
			t.Errorf("%q: %s %v", text, got, err)
		}
	}
}

func TestAPollWaitsForTheNextState(t *testing.T) {
	w := begin(t, func(o *Options) { o.Limits = "default=100/1m" })
	e := w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	poll := func(wait string, headers ...string) <-chan *answer {
		before := w.server.watches.count()
		answered := w.later("/status/RUN1", append([]string{"Prefer", wait, "If-None-Match", e.ETag}, headers...)...)
		w.watchers(before + 1)
		return answered
	}
	first, second := poll("wait=60"), poll("wait=30, respond-async", "Authorization", token(t, "user_1"))
	w.put("run_status", "RUN1", told(t, "RUN1", "one", 101)) // an equal document is no news
	changed := w.put("run_status", "RUN1", told(t, "RUN1", "two", 102))
	for answered, wait := range map[<-chan *answer]string{first: "60", second: "30"} {
		a := <-answered
		w.check(a.Request, a)
		a.wants(t, 200, map[string]string{
			"Preference-Applied": "wait=" + wait, "ETag": regexp.QuoteMeta(changed.ETag), "X-Cache": "HIT", "Cache-Status": "mythic-cache; hit; ttl=(2[5-9]|30)",
			"Age": "[01]", "RateLimit": `"default";r=9[0-9];.*`,
		})
		if !bytes.Equal(a.body, changed.Body) {
			t.Errorf("%s", a.body)
		}
	}
	e = changed
	begun := time.Now()
	a := <-poll("wait=1")
	w.check(a.Request, a)
	a.wants(t, 304, map[string]string{"Preference-Applied": "wait=1", "ETag": regexp.QuoteMeta(e.ETag), "Cache-Status": "mythic-cache; hit; .*", "X-Process-Time": `0\.[0-9]+`})
	if took := time.Since(begun); took < time.Second || took > 20*time.Second {
		t.Errorf("it waited %s", took)
	}
	// The run becomes somebody's.
	first, second = poll("wait=60"), poll("wait=60", "Authorization", token(t, "user_1"))
	owned := told(t, "RUN1", "mine", 103)
	owned.Owned, owned.Owner = true, "user_1"
	w.put("run_status", "RUN1", owned)
	(<-first).wants(t, 404, nil)
	(<-second).wants(t, 200, nil)
	w.nobodyWatches()
}

func TestAPollWhoseClientHangsUpFreesAll(t *testing.T) {
	w := begin(t)
	e := w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/status/RUN1", http.NoBody)
	r.Header = http.Header{"If-None-Match": {e.ETag}, "Prefer": {"wait=60"}}
	failed := make(chan error, 1)
	go func() { _, err := send(r); failed <- err }()
	w.watchers(1)
	if text := string(w.get("/metrics").body); !strings.Contains(text, `mythic_cache_http_watchers{way="poll"} 1`) {
		t.Error("the gauge of watchers does not say 1")
	}
	cancel()
	if err := <-failed; err == nil {
		t.Error("it was answered")
	}
	w.nobodyWatches()
}

// TestAPollThatHeardNothingSaysHowOldItsAnswerIs has the entry's time end while it waits,
// and nobody to load another.
func TestAPollThatHeardNothingSaysHowOldItsAnswerIs(t *testing.T) {
	w := begin(t)
	f := told(t, "RUN1", "one", 100)
	f.TTL = 950 * time.Millisecond
	e := w.put("run_status", "RUN1", f)
	w.get("/status/RUN1", "Prefer", "wait=1", "If-None-Match", e.ETag).wants(t, 304, map[string]string{
		"X-Cache": "STALE", "Cache-Status": `mythic-cache; hit; ttl=-[1-9]; detail="stale"`, "Age": "[1-9]", "ETag": regexp.QuoteMeta(e.ETag),
	})
}

// TestAPollEndsWithWhatItsCallerMayRead has a run become somebody's whose document stays
// as it is, so that nothing but the owner tells.
func TestAPollEndsWithWhatItsCallerMayRead(t *testing.T) {
	w := begin(t, func(o *Options) { o.MaxWatchers = 1 })
	e := w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	poll := []string{"Prefer", "wait=60", "If-None-Match", e.ETag}
	begun, answered := time.Now(), w.later("/status/RUN1", poll...)
	w.watchers(1)
	owned := told(t, "RUN1", "one", 101)
	owned.Owned, owned.Owner = true, "user_1"
	if again := w.put("run_status", "RUN1", owned); again.ETag != e.ETag {
		t.Fatalf("%s is not %s", again.ETag, e.ETag)
	}
	a := <-answered
	w.check(a.Request, a)
	a.wants(t, 404, map[string]string{"ETag": "", "X-Cache": "MISS", "Cache-Status": "mythic-cache; fwd=miss", "Age": ""})
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it was told after %s", took)
	}
	w.nobodyWatches()
	// Who may not read it is told the same where no place is left to wait in: 503 would
	// say that there is something.
	owner := w.watch("/status/RUN1", "Authorization", token(t, "user_1"))
	owner.next()
	w.get("/status/RUN1", poll...).wants(t, 404, nil)
	w.get("/status/RUN1", append(poll, "Authorization", token(t, "user_1"))...).wants(t, 503, nil)
}
