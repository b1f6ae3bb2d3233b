package cache_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

func TestLimitIsExactUnderConcurrency(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	put(t, s, "a", at(10), "x")
	const allowed, callers = 50, 200
	limit := &cache.Limit{Caller: "me", Rule: "default", Count: allowed, Per: time.Hour}
	var admitted, served atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range callers {
		wg.Go(func() {
			<-start
			r, err := s.Read(t.Context(), cache.Query{View: books(), Key: "a", Limit: limit})
			switch {
			case err != nil:
				t.Error(err)
			case r.Admission.Allowed:
				admitted.Add(1)
			case r.Why != cache.WhyLimited || r.Status != cache.Miss || r.Admission.RetryAfter <= 0 || r.Admission.Remaining != 0:
				t.Errorf("not admitted: %+v", r)
			}
			if err == nil && r.Status == cache.Hit {
				served.Add(1)
			}
		})
	}
	close(start)
	wg.Wait()
	if admitted.Load() != allowed || served.Load() != allowed {
		t.Errorf("admitted %d, served %d of %d; want %d", admitted.Load(), served.Load(), callers, allowed)
	}
	if counts := s.Counts()["books"]; counts.Hits != allowed || counts.Misses != 0 {
		t.Errorf("counts %+v", counts)
	}
}

func TestLimitFigures(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	admit := func(l cache.Limit) cache.Admission {
		a, err := s.Admit(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	l := cache.Limit{Caller: "me", Rule: "r", Count: 3, Per: time.Hour}
	near := func(got, want time.Duration) bool { return got <= want && got > want-30*time.Second }
	for i := range 3 {
		a := admit(l)
		if !a.Allowed || a.Limit != 3 || a.Remaining != 2-i || a.RetryAfter != 0 || !near(a.Reset, time.Duration(i+1)*20*time.Minute) {
			t.Errorf("admission %d: %+v", i, a)
		}
	}
	if a := admit(l); a.Allowed || a.Remaining != 0 || !near(a.RetryAfter, 20*time.Minute) || !near(a.Reset, time.Hour) {
		t.Errorf("fourth: %+v", a)
	}
	for _, other := range []cache.Limit{
		{Caller: "you", Rule: "r", Count: 1, Per: time.Hour},
		{Caller: "me", Rule: "s", Count: 1, Per: time.Hour},
		{Caller: "b", Rule: "x:a", Count: 1, Per: time.Hour},
		{Caller: "a:b", Rule: "x", Count: 1, Per: time.Hour},
	} {
		if !admit(other).Allowed {
			t.Errorf("%+v shares a counter with another", other)
		}
	}
	// Lowered, the limit does not hold anybody longer than it itself takes.
	l.Count, l.Per = 1, time.Minute
	if a := admit(l); a.Allowed || a.RetryAfter > time.Minute {
		t.Errorf("lowered: %+v", a)
	}
}

func TestLimitLetsInAtItsRate(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	l := cache.Limit{Caller: "me", Rule: "r", Count: 2, Per: 100 * time.Millisecond}
	started, admitted := time.Now(), 0
	for admitted < 8 {
		a, err := s.Admit(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		if a.Allowed {
			admitted++
		}
	}
	// Two at once and six at one each 50 ms.
	if took := time.Since(started); took < 290*time.Millisecond {
		t.Errorf("eight were admitted within %s", took)
	}
}
