package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
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

// slowly has Redis take its time for reads.
type slowly struct{ by atomic.Int64 }

func (s *slowly) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (s *slowly) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (s *slowly) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		<-time.After(time.Duration(s.by.Load()))
		return next(ctx, commands)
	}
}

// TestASlowRedisTellsNoneOfACopy has Redis answer late when it is back: later than who
// holds a copy waits for it. Others wait, and are told what is there by then.
func TestASlowRedisTellsNoneOfACopy(t *testing.T) {
	slow := &slowly{}
	w := begin(t, nearBy(t), func(o *Options) {
		o.MissWait, o.Limits, o.Auth = time.Second, "/status=1000/1h", AuthOptions{Mode: AuthHeader}
		o.Store.Client().AddHook(slow)
	})
	w.worker(func(e event.Event) {
		none := later(t, "")
		none.Negative, none.Body = true, nil
		w.put(e.View, e.Subject, none)
	})
	owned := later(t, status("RUN1"))
	owned.Owned, owned.Owner = true, "user_1"
	w.put("run_status", "RUN1", owned)
	w.settle("/status/RUN1", "X-User-Id", "user_1")
	if err := w.client.ClientKillByFilter(t.Context(), "TYPE", "pubsub", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "the link is lost", func() error {
		if w.server.reader.Ready() == nil {
			return errors.New("it is there")
		}
		return nil
	})
	testserver.Eventually(t, "it is there again", w.server.reader.Ready)
	testserver.Eventually(t, "waiters listen again", w.server.misses.waiters.Ready)
	slow.by.Store(int64(250 * time.Millisecond))
	w.alike(http.StatusNotFound, kindNotFound)
	slow.by.Store(0)
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
