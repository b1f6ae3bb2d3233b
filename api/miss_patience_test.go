package api

import (
	"context"
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

// TestAnOldCopyDoesNotWaitForItsEvent has Redis hang again, just after it was back: the
// event that asks for a newer entry is not taken. Whoever has an old copy is given that in
// his time. As many such events as may wait are on their way, and no more.
func TestAnOldCopyDoesNotWaitForItsEvent(t *testing.T) {
	const wait = 100 * time.Millisecond
	w := begin(t, func(o *Options) { o.MissWait, o.MaxWaiting = wait, 2 })
	for _, run := range []string{"RUN1", "RUN2", "RUN3"} {
		old := fill(t, status(run))
		old.TTL = time.Millisecond
		w.put("run_status", run, old)
		testserver.Eventually(t, "it is old", func() error {
			if a := w.get("/status/" + run); a.Header.Get("X-Cache") != markStale {
				return errors.New(a.Header.Get("X-Cache"))
			}
			return nil
		})
	}
	<-time.After(vainFor) // that was in vain, as long as nobody waits
	m := w.server.misses
	hanging := make(chan struct{}, 4)
	m.publisher = publishing{append: func(ctx context.Context) error {
		w.put("run_status", "RUN1", later(t, status("RUN1"))) // nobody knows yet whether this is an answer
		hanging <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}}
	m.returned.note(time.Now())
	begun := time.Now()
	for _, run := range []string{"RUN1", "RUN2", "RUN3"} {
		w.get("/status/"+run).wants(t, 200, map[string]string{"X-Cache": markStale})
	}
	if took := time.Since(begun); took < 2*wait || took > returnWait-wait {
		t.Errorf("three old copies took %s", took)
	}
	if n := len(hanging); n != 2 {
		t.Errorf("%d events are on their way", n)
	}
	m.wait()
	if took := time.Since(begun); took < returnWait {
		t.Errorf("the events were given up after %s, and others may have joined", took)
	}
	w.get("/status/RUN3").wants(t, 200, map[string]string{"X-Cache": markStale})
	if n := len(hanging); n != 3 {
		t.Errorf("%d events were sent in all", n)
	}
	m.wait()
}
