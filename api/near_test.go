package api

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
)

// nearBy has a server keep entries in memory.
func nearBy(t testing.TB) func(*Options) {
	t.Helper()
	return func(o *Options) { o.Reader = (&world{t: t, store: o.Store, views: o.Views}).reader(1 << 20) }
}

// settle asks until the answer comes from memory.
func (w *world) settle(path string, headers ...string) *answer {
	w.t.Helper()
	var a *answer
	testserver.Eventually(w.t, path+" from memory", func() error {
		if a = w.get(path, headers...); !strings.HasSuffix(a.Header.Get("Cache-Status"), "; detail=near") {
			return errors.New(a.Header.Get("Cache-Status"))
		}
		return nil
	})
	return a
}

func TestAHitFromMemorySaysSo(t *testing.T) {
	w := begin(t, nearBy(t), func(o *Options) { o.Limits = "default=1000/1m" })
	e := w.put("run_status", "RUN1", fill(t, status("RUN1")))
	a := w.settle("/status/RUN1")
	wants := map[string]string{
		"Content-Type": "application/json", "Cache-Status": `mythic-cache; hit; ttl=(2[0-9]|30); detail=near`, "X-Cache": "HIT",
		"Age": "[0-9]", "ETag": regexp.QuoteMeta(e.ETag), "Cache-Control": "private, max-age=0, must-revalidate",
		"Vary": "Accept, Authorization, X-User-Id, Accept-Encoding", "Server-Timing": `total;dur=[0-9]+\.[0-9]{3}`, "X-Process-Time": `[0-9]+\.[0-9]{6}`,
		"X-Content-Type-Options": "nosniff", "RateLimit": `"default";r=9[0-9]{2};t=[0-9]+`, "RateLimit-Policy": `"default";q=1000;w=60`,
	}
	a.wants(t, 200, wants)
	if string(a.body) != status("RUN1") || a.ContentLength != int64(len(a.body)) {
		t.Errorf("%d bytes: %s", a.ContentLength, a.body)
	}
	head := w.do(http.MethodHead, "/status/RUN1", "")
	head.wants(t, 200, wants)
	wants["Content-Type"] = ""
	w.get("/status/RUN1", "If-None-Match", e.ETag).wants(t, 304, wants)
	// Asked to have seen what it has not, memory does not answer.
	w.worker(func(e event.Event) { w.put(e.View, e.Subject, later(t, status("RUN1"))) })
	w.get("/status/RUN1", "X-Min-Xid", "99").wants(t, 200, map[string]string{"Cache-Status": ".*; hit; .*"})
	w.get("/status/RUN1", "X-Min-Xid", "150").wants(t, 200, map[string]string{"X-Cache": "MISS", "Cache-Status": "mythic-cache; fwd=request; .*"})
}

// TestMemoryKnowsWhoOwnsWhat asks for somebody's run as somebody else.
func TestMemoryKnowsWhoOwnsWhat(t *testing.T) {
	w := begin(t, nearBy(t))
	owned := fill(t, status("RUN1"))
	owned.Owned, owned.Owner = true, "user_1"
	w.put("run_status", "RUN1", owned)
	s := at(t, 1, "100:100:")
	w.put("user_books", "user_2", cache.Fill{Negative: true, Version: s.Version(), Snapshot: s})
	w.settle("/status/RUN1", "Authorization", token(t, "user_1"))
	for _, headers := range [][]string{{}, {"Authorization", token(t, "user_2")}} {
		w.get("/status/RUN1", headers...).wants(t, 404, map[string]string{"X-Cache": "MISS", "Cache-Status": "mythic-cache; fwd=miss", "Age": "", "ETag": ""})
	}
	a := w.settle("/books/my", "Authorization", token(t, "user_2"))
	a.wants(t, 404, map[string]string{"X-Cache": "HIT", "Cache-Status": "mythic-cache; hit; detail=near", "Age": "", "ETag": "", "Cache-Control": "no-store"})
}

// TestMemoryAnswersForAFrozenRedis is served at once, and within limits.
func TestMemoryAnswersForAFrozenRedis(t *testing.T) {
	w := begin(t, nearBy(t), func(o *Options) { o.Limits, o.Auth = "/status=30/1h", AuthOptions{Mode: AuthHeader} })
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	w.settle("/status/RUN1", "X-User-Id", "user_1")
	if err := w.redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer w.redis.Thaw()
	testserver.Eventually(t, "a stale answer", func() error {
		a := w.get("/status/RUN1", "X-User-Id", "user_1")
		if a.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		if a.Header.Get("X-Cache") == "HIT" {
			time.Sleep(50 * time.Millisecond) // or the limit is reached before Redis has been silent for long enough
			return errors.New("still a hit")
		}
		a.wants(t, 200, map[string]string{
			"X-Cache": "STALE", "Cache-Status": `mythic-cache; hit; ttl=(2[0-9]|30); detail="redis-away"`, "Age": "[0-9]+", "ETag": ".+",
			"RateLimit": `"/status";r=[0-9]+;t=[0-9]+`,
		})
		return nil
	})
	begun, refused := time.Now(), 0
	for range 40 {
		switch a := w.get("/status/RUN1", "X-User-Id", "user_2"); a.StatusCode {
		case http.StatusOK:
		case http.StatusTooManyRequests:
			a.wants(t, 429, map[string]string{"Retry-After": "[1-9][0-9]*", "RateLimit": `"/status";r=0;t=[0-9]+`})
			refused++
		default:
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
	if refused != 10 {
		t.Errorf("%d of 40 were refused by a limit of 30", refused)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("40 answers took %s", took)
	}
	// What is not in memory cannot be answered.
	w.get("/status/RUN2").wants(t, 503, map[string]string{"Retry-After": "[1-9][0-9]*", "X-Cache": ""})
}

// later is a value read in the snapshot 200:200: of epoch 1.
func later(t testing.TB, body string) cache.Fill {
	t.Helper()
	s := at(t, 1, "200:200:")
	return cache.Fill{Version: s.Version(), Snapshot: s, Body: []byte(body)}
}
