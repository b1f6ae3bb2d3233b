package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// stopsOf records in which order stages end.
type stopsOf struct {
	mu    sync.Mutex
	names []string
}

func (s *stopsOf) stage(name string, takes time.Duration) *stage {
	st := &stage{name: name, patience: 10 * time.Second}
	st.add(name, func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(takes)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.names = append(s.names, name)
		return nil
	})
	return st
}

// stopped returns what has ended so far.
func (s *stopsOf) stopped() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.names)
}

func TestStagesStopInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stops stopsOf
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := runStages(ctx, zerolog.Nop(), stops.stage("producers", 3*time.Second), stops.stage("consumers", 2*time.Second), stops.stage("api", 0))
		if err != nil || !slices.Equal(stops.stopped(), []string{"producers", "consumers", "api"}) {
			t.Errorf("stopped %v, %v", stops.stopped(), err)
		}
	})
}

func TestAFailingTaskStopsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stops stopsOf
		broken := &stage{name: "producers", patience: time.Second}
		boom := errors.New("boom")
		broken.add("relay", func(context.Context) error { return boom })
		if err := runStages(t.Context(), zerolog.Nop(), broken, stops.stage("api", 0)); !errors.Is(err, boom) || len(stops.stopped()) != 1 {
			t.Errorf("err %v, stopped %v", err, stops.stopped())
		}
	})
}

func TestAStageThatHangsIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stops stopsOf
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun := time.Now()
		hanging := stops.stage("consumers", time.Minute)
		err := runStages(ctx, zerolog.Nop(), hanging, stops.stage("api", 0))
		if !errors.Is(err, errLeft) || time.Since(begun) != 10*time.Second || !slices.Equal(stops.stopped(), []string{"api"}) {
			t.Errorf("err %v after %s, stopped %v", err, time.Since(begun), stops.stopped())
		}
		time.Sleep(time.Minute) // let the hanging task end, as the bubble demands
	})
}

func TestPartsSayWhatIsMissing(t *testing.T) {
	var p parts
	var database part
	p.watch("database", database.Ready)
	if !errors.Is(p.states()["database"], errStarting) {
		t.Error("a part that nobody has set is ready")
	}
	if !database.report(nil) || database.report(nil) {
		t.Error("a change is not told from no change")
	}
	if p.states()["database"] != nil {
		t.Error("a part that is set is not ready")
	}
}
