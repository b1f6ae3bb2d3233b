package api

import (
	"errors"
	"testing"
	"time"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
)

// TestAMissHasMoreTimeWhenRedisIsBack has a worker that takes ten times as long as a miss
// may wait. When Redis is just back, it may wait for him, but not with an old copy.
func TestAMissHasMoreTimeWhenRedisIsBack(t *testing.T) {
	const wait = 50 * time.Millisecond
	w := begin(t, nearBy(t), func(o *Options) { o.MissWait = wait })
	old := fill(t, status("OLD"))
	old.TTL = time.Millisecond
	w.put("run_status", "OLD", old)
	testserver.Eventually(t, "it is old", func() error {
		if a := w.get("/status/OLD"); a.Header.Get("X-Cache") != markStale {
			return errors.New(a.Header.Get("X-Cache"))
		}
		return nil
	})
	filled := map[string]bool{"OLD": true}
	w.worker(func(e event.Event) {
		if !filled[e.Subject] {
			filled[e.Subject] = true
			time.Sleep(10 * wait)
			w.put(e.View, e.Subject, fill(t, status(e.Subject)))
		}
	})
	w.get("/status/RUN1").wants(t, 503, nil)

	w.settle("/status/RUN1")
	if err := w.redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "Redis is missed", func() error {
		if a := w.get("/status/RUN1"); a.Header.Get("X-Cache") != markStale {
			return errors.New(a.Header.Get("X-Cache"))
		}
		return nil
	})
	if err := w.redis.Thaw(); err != nil {
		t.Fatal(err)
	}
	w.settle("/status/RUN1")
	w.get("/status/RUN2").wants(t, 200, map[string]string{"X-Cache": markMiss})
	begun := time.Now()
	w.get("/status/OLD").wants(t, 200, map[string]string{"X-Cache": markStale})
	if took := time.Since(begun); took > returnWait-wait {
		t.Errorf("with an old copy it waited %s", took)
	}

	w.server.misses.returned.note(time.Now().Add(-returnTakes))
	w.get("/status/RUN3").wants(t, 503, nil)
	w.settle("/status/RUN3") // the worker is done
}
