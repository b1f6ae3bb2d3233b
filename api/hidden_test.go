package api

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

// alike holds the answers about somebody's run and about none, as a stranger gets them,
// against each other.
func (w *world) alike(status int, kind kind) {
	w.t.Helper()
	var seen []http.Header
	for _, run := range []string{"RUN1", "NONE"} {
		a := w.get("/status/"+run, "X-User-Id", "user_2")
		if a.StatusCode != status {
			w.t.Fatalf("%s: %d %s", run, a.StatusCode, a.body)
		}
		if p := a.problem(w.t); p.Type != kind.uri() {
			w.t.Errorf("%s: %+v", run, p)
		}
		header := maps.Clone(a.Header)
		for _, name := range []string{"Date", "Server-Timing", "X-Process-Time", "Ratelimit"} {
			if header[name] != nil {
				header[name] = []string{"another each time"}
			}
		}
		seen = append(seen, header)
	}
	if !reflect.DeepEqual(seen[0], seen[1]) {
		w.t.Errorf("they differ:\n%v\n%v", seen[0], seen[1])
	}
}

// TestAnOldCopyIsHiddenAsIfThereWereNone asks for what was somebody's while nobody can
// say what it is now: the owner gets the copy, and others what they would get without.
func TestAnOldCopyIsHiddenAsIfThereWereNone(t *testing.T) {
	w := begin(t, nearBy(t), func(o *Options) {
		o.MissWait, o.Limits, o.Auth = 20*time.Millisecond, "/status=1000/1h", AuthOptions{Mode: AuthHeader}
	})
	mine := func() *answer { return w.get("/status/RUN1", "X-User-Id", "user_1") }
	owned := fill(t, status("RUN1"))
	owned.Owned, owned.Owner, owned.TTL = true, "user_1", time.Millisecond
	w.put("run_status", "RUN1", owned)
	testserver.Eventually(t, "it is old", func() error {
		if a := mine(); a.Header.Get("X-Cache") != markStale {
			return errors.New(a.Header.Get("X-Cache"))
		}
		return nil
	})
	w.alike(http.StatusServiceUnavailable, kindNotFilled) // there are no workers

	owned = later(t, status("RUN1"))
	owned.Owned, owned.Owner = true, "user_1"
	w.put("run_status", "RUN1", owned)
	w.settle("/status/RUN1", "X-User-Id", "user_1")
	if err := w.redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer w.redis.Thaw()
	testserver.Eventually(t, "Redis is missed", func() error {
		if a := mine(); a.Header.Get("X-Cache") != markStale {
			time.Sleep(50 * time.Millisecond) // or the limit is reached before
			return errors.New(a.Header.Get("X-Cache"))
		}
		return nil
	})
	w.alike(http.StatusServiceUnavailable, kindCacheAway)
}

// TestALimitWithoutRedisHidesToo has a stranger come too often while Redis is gone. That
// he does is no sign of Redis, either.
func TestALimitWithoutRedisHidesToo(t *testing.T) {
	const most = 60
	w := begin(t, nearBy(t), func(o *Options) {
		o.Limits, o.Auth = fmt.Sprintf("/status=%d/1h", most), AuthOptions{Mode: AuthHeader}
	})
	owned := fill(t, status("RUN1"))
	owned.Owned, owned.Owner = true, "user_1"
	w.put("run_status", "RUN1", owned)
	w.settle("/status/RUN1", "X-User-Id", "user_1")
	w.redis.Kill()
	testserver.Eventually(t, "Redis is missed", func() error {
		if a := w.get("/status/RUN1", "X-User-Id", "user_1"); a.Header.Get("X-Cache") != markStale {
			time.Sleep(50 * time.Millisecond) // or the limit is reached before
			return errors.New(a.Header.Get("X-Cache"))
		}
		return nil
	})
	for range most / 2 {
		w.alike(http.StatusServiceUnavailable, kindCacheAway)
	}
	w.alike(http.StatusTooManyRequests, kindLimited)
	if !w.server.redisAway.Load() {
		t.Error("a refusal was taken for a sign of Redis")
	}
}
