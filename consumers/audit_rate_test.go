package consumers

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/cache/version"
)

// However much is behind, and for however long, an auditor loads no more than it may: each
// close look at a suspect asks once how far all has been sent, and is one of its loads.
// Those that are fresh have their turn as well.
func TestSuspectsAreLookedAtWithinTheRate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	for n := range 100 {
		id := strconv.Itoa(n)
		w.set(id, 1)
		w.fill("thing", id)
	}
	sent := w.snapshot()
	w.exec("UPDATE things SET n = 2 WHERE id::int % 10 <> 0")
	w.exec("INSERT INTO mythic_cache.outbox (type, view) VALUES ('things.changed', 'thing')")
	const rate, looks = 50, 75
	x := w.examine(&sent, 0)
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	var asked atomic.Int64
	enough := errors.New("it has looked often enough")
	x.road.Sent = func(context.Context) (version.Snapshot, error) {
		if asked.Add(1) == looks {
			cancel(enough)
		}
		return sent, nil
	}
	metrics := prometheus.NewRegistry()
	a, err := NewAuditor(w.store, w.loader, w.views, AuditorOptions{Instance: "one", Rate: rate, Road: x.road, Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := a.Run(ctx); err != nil || !errors.Is(context.Cause(ctx), enough) {
		t.Fatalf("it ended with %v, %v", err, context.Cause(ctx))
	}
	if took := time.Since(begun); took < (looks-1)*time.Second/rate {
		t.Errorf("%d close looks in %s", looks, took)
	}
	if got := verdicts(t, metrics); got["thing fresh"] == 0 || got["thing wrong"] > 0 {
		t.Errorf("it has found %v", got)
	}
}

// What waits for long is looked at ever less, but not what waits for a verdict alone.
func TestSuspectsAreLookedAtEverLess(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]time.Duration{
		0: againSoonest, 300 * time.Millisecond: 300 * time.Millisecond, 4 * time.Second: 4 * time.Second, time.Minute: againLatest,
	} {
		s := &suspicion{since: time.Now().Add(-age)}
		if got := s.pause(); got < want || got > againLatest {
			t.Errorf("after %s, while a change is on its way, it rests for %s", age, got)
		}
		s.steady = time.Now()
		if got := s.pause(); got < min(want, againSteady) || got > againSteady {
			t.Errorf("after %s, while none is, it rests for %s", age, got)
		}
	}
}
