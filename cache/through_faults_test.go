package cache_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

func TestThroughChecksItsOptions(t *testing.T) {
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	good := cache.ThroughOptions[int]{View: "numbers", TTL: time.Minute}
	if _, err := cache.NewThrough(s, nil, good); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.NewThrough(nil, nil, good); err == nil {
		t.Error("made without a store")
	}
	if _, err := cache.NewThrough(s, other.NewWaiters(), good); err == nil {
		t.Error("made with the waiters of another store")
	}
	for name, spoil := range map[string]func(*cache.ThroughOptions[int]){
		"no view":            func(o *cache.ThroughOptions[int]) { o.View = "" },
		"a colon":            func(o *cache.ThroughOptions[int]) { o.View = "a:b" },
		"no TTL":             func(o *cache.ThroughOptions[int]) { o.TTL = 0 },
		"a short lease":      func(o *cache.ThroughOptions[int]) { o.LeaseFor = time.Millisecond },
		"negative":           func(o *cache.ThroughOptions[int]) { o.CallFor = -1 },
		"half of a codec":    func(o *cache.ThroughOptions[int]) { o.Encode = func(int) ([]byte, error) { return nil, nil } },
		"a negative absence": func(o *cache.ThroughOptions[int]) { o.NotFound = -time.Second },
	} {
		o := good
		spoil(&o)
		if _, err := cache.NewThrough(s, nil, o); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

// What was kept by a program that meant something else by the name is made anew.
func TestThroughReplacesWhatItCannotDecode(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	texts, err := cache.NewThrough(s, nil, cache.ThroughOptions[string]{View: "reports", TTL: long})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := texts.Do(t.Context(), "a", func(context.Context) (string, error) { return "once", nil }); err != nil {
		t.Fatal(err)
	}
	var heard atomic.Int64
	th := through(t, s, cache.ThroughOptions[report]{OnError: func(_ context.Context, key string, err error) {
		if key != "a" || !strings.Contains(err.Error(), "decode") {
			t.Errorf("%s: %v", key, err)
		}
		heard.Add(1)
	}})
	var made calls
	wantPages(t, th, made.report, 1)
	wantPages(t, th, made.report, 1)
	if heard.Load() == 0 {
		t.Error("nobody heard of it")
	}
}

func TestThroughReturnsWhatWouldBeKept(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	type list struct{ Items []int }
	lists, err := cache.NewThrough(s, nil, cache.ThroughOptions[*list]{View: "lists", TTL: long})
	if err != nil {
		t.Fatal(err)
	}
	own := &list{Items: []int{1}}
	get := func(context.Context) (*list, error) { return own, nil }
	first, err := lists.Do(t.Context(), "a", get)
	if err != nil || first == own || len(first.Items) != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	first.Items[0] = 2
	if second, err := lists.Do(t.Context(), "a", get); err != nil || second.Items[0] != 1 {
		t.Errorf("%+v, %v", second, err)
	}

	numbers, err := cache.NewThrough(s, nil, cache.ThroughOptions[float64]{View: "numbers", TTL: long, LeaseFor: long})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds the lease given back
		if _, err := numbers.Do(t.Context(), "a", func(context.Context) (float64, error) { return math.NaN(), nil }); err == nil {
			t.Error("what JSON has no word for was kept")
		}
	}
}

func TestThroughHeedsContexts(t *testing.T) {
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	o := cache.ThroughOptions[report]{LeaseFor: long}
	th, elsewhere := through(t, s, o), through(t, other, o)
	call := newBlocked()
	ctx, cancel := context.WithCancel(t.Context())
	first := ask(ctx, th, call.report)
	hear(t, call.begun)

	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	for _, one := range []*cache.Through[report]{th, elsewhere} {
		if a := hear(t, ask(short, one, nil)); !errors.Is(a.err, context.DeadlineExceeded) {
			t.Errorf("who has waited for long enough has %+v", a)
		}
	}
	// When the one who calls gives up, another does it.
	var made calls
	second, third := ask(t.Context(), th, made.report), ask(t.Context(), elsewhere, made.report)
	missed(t, s, 4)
	cancel()
	if a := hear(t, first); !errors.Is(a.err, context.Canceled) {
		t.Errorf("who gave up has %+v", a)
	}
	for _, c := range []<-chan asked{second, third} {
		if a := hear(t, c); a.err != nil || a.report.Pages != 1 {
			t.Errorf("who waited has %+v", a)
		}
	}
	made.expect(t, 1)
}

func TestThroughBoundsACall(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	th := through(t, s, cache.ThroughOptions[report]{CallFor: 50 * time.Millisecond, LeaseFor: long})
	if a := hear(t, ask(t.Context(), th, newBlocked().report)); !errors.Is(a.err, context.DeadlineExceeded) {
		t.Errorf("a call that takes too long ends with %+v", a)
	}
	var made calls
	wantPages(t, th, made.report, 1)
}

// together has one ask and twenty more join it while another holds the lease, and
// then gives the lease back, so that the first one's call begins.
func together(t *testing.T, s *cache.Store, th *cache.Through[report], lead func(), call func(context.Context) (report, error)) []<-chan asked {
	t.Helper()
	held, err := s.Lease(t.Context(), &view.View{Name: "through:reports", Model: true}, "a", long)
	if err != nil {
		t.Fatal(err)
	}
	go lead()
	missed(t, s, 2) // it waits, and has looked again
	var others []<-chan asked
	for range 20 {
		others = append(others, ask(t.Context(), th, call))
	}
	missed(t, s, 25)
	if err := s.Abandon(t.Context(), held, "it is over"); err != nil {
		t.Fatal(err)
	}
	return others
}

// One who gives up in a call does not fail those who asked before it began.
func TestThroughDoesNotShareTheEndOfAContext(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	th := through(t, s, cache.ThroughOptions[report]{})
	call := newBlocked()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := make(chan error, 1)
	var made calls
	others := together(t, s, th, func() {
		_, err := th.Do(ctx, "a", call.report)
		first <- err
	}, made.report)
	hear(t, call.begun)
	cancel()
	if err := hear(t, first); !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up has %v", err)
	}
	for _, c := range others {
		if a := hear(t, c); a.err != nil || a.report.Pages != 1 {
			t.Errorf("who waited has %+v", a)
		}
	}
}

// Nor do they all fall over who asked before a call that panics.
func TestThroughSharesAPanicAsAnError(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	th := through(t, s, cache.ThroughOptions[report]{})
	fell := make(chan any, 1)
	var made calls
	others := together(t, s, th, func() {
		defer func() { fell <- recover() }()
		_, _ = th.Do(t.Context(), "a", func(context.Context) (report, error) { panic("fell over") })
	}, made.report)
	if value := hear(t, fell); value != "fell over" {
		t.Errorf("recovered %v", value)
	}
	told := 0
	for _, c := range others {
		a := hear(t, c)
		switch {
		case a.err == nil && a.report.Pages == 1: // who joined too late for the first call
		case a.err != nil && strings.Contains(a.err.Error(), "did not return"):
			told++
		default:
			t.Errorf("who waited has %+v", a)
		}
	}
	if told == 0 {
		t.Error("nobody was told")
	}
}

// What was made is kept, even if its caller has gone meanwhile.
func TestThroughKeepsWhatWasMadeInVain(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	th := through(t, s, cache.ThroughOptions[report]{})
	ctx, cancel := context.WithCancel(t.Context())
	var made calls
	got, err := th.Do(ctx, "a", func(ctx context.Context) (report, error) {
		cancel()
		return made.report(ctx)
	})
	if err != nil || got.Pages != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	wantPages(t, th, made.report, 1)
}

// A function that heeds no context keeps neither its process nor others waiting.
func TestThroughGivesUpAFunctionThatHangs(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	o := cache.ThroughOptions[report]{CallFor: 200 * time.Millisecond, LeaseFor: 200 * time.Millisecond, RedisFor: 100 * time.Millisecond}
	th := through(t, s, o)
	o.RedisFor = time.Minute // so that only the lease decides
	elsewhere := through(t, other, o)
	begun, goOn := make(chan struct{}), make(chan struct{})
	first := ask(t.Context(), th, func(context.Context) (report, error) {
		close(begun)
		<-goOn
		return report{Pages: 99}, nil
	})
	hear(t, begun)
	var made calls
	second, third := ask(t.Context(), th, made.report), ask(t.Context(), elsewhere, made.report)
	for _, c := range []<-chan asked{second, third} {
		if a := hear(t, c); a.err != nil || a.report.Pages == 99 {
			t.Errorf("who waited has %+v", a)
		}
	}
	if elsewhere.Bypassed() != 0 {
		t.Error("the lease of the one that hangs did not run out")
	}
	close(goOn)
	if a := hear(t, first); a.err != nil || a.report.Pages != 99 {
		t.Errorf("the first has %+v", a)
	}
}

func TestThroughWithoutRedis(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t, "--appendfsync", "always")
	s := newStore(t, r, cache.Options{})
	var heard atomic.Int64
	// A lease that Redis takes through its restart holds up who comes first.
	th := through(t, s, cache.ThroughOptions[report]{
		LeaseFor: 300 * time.Millisecond, OnError: func(context.Context, string, error) { heard.Add(1) },
	})
	var made calls
	wantPages(t, th, made.report, 1)

	// It goes in the middle of a call.
	if err := th.Forget(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	cut := newBlocked()
	first := ask(t.Context(), th, cut.report)
	hear(t, cut.begun)
	r.Kill()
	close(cut.goOn)
	if a := hear(t, first); a.err != nil || a.report.Pages != 1 || heard.Load() == 0 || th.Bypassed() != 0 {
		t.Errorf("%+v, heard %d times, %d without a lease", a, heard.Load(), th.Bypassed())
	}

	wantPages(t, th, made.report, 2)
	if th.Bypassed() != 1 {
		t.Errorf("%d calls are counted as made without Redis", th.Bypassed())
	}
	if err := th.Forget(t.Context(), "a"); err == nil {
		t.Error("something was forgotten without Redis")
	}
	// In this process there is one call at a time still.
	var at, most atomic.Int64
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			got, err := th.Do(t.Context(), "a", func(ctx context.Context) (report, error) {
				most.Store(max(most.Load(), at.Add(1)))
				defer at.Add(-1)
				return made.report(ctx)
			})
			if err != nil || got.Pages < 3 {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d calls at a time", most.Load())
	}

	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "ping", func() error { return s.Ping(t.Context()) })
	var last report
	eventually(t, "Redis is used again", func() bool {
		before := th.Bypassed()
		last, _ = th.Do(t.Context(), "a", made.report)
		return th.Bypassed() == before
	})
	wantPages(t, th, made.report, last.Pages)
}

// A Redis that keeps silent costs RedisFor.
func TestThroughWithoutAnAnswerOfRedis(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	th := through(t, s, cache.ThroughOptions[report]{RedisFor: 100 * time.Millisecond})
	if err := r.Freeze(); err != nil {
		t.Fatal(err)
	}
	var made calls
	started := time.Now()
	const often = 1000
	for i := range often {
		wantPages(t, th, made.report, i+1)
	}
	if took := time.Since(started); took > 10*time.Second || th.Bypassed() != often {
		t.Errorf("it took %s, and %d calls were made without Redis", took, th.Bypassed())
	}
	if err := r.Thaw(); err != nil {
		t.Fatal(err)
	}
}

func TestThroughSurvivesFlushAndRestart(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t, "--appendfsync", "always")
	s := newStore(t, r, cache.Options{})
	th := through(t, s, cache.ThroughOptions[report]{})
	var made calls
	wantPages(t, th, made.report, 1)
	if err := s.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	wantPages(t, th, made.report, 2)
	wantPages(t, th, made.report, 2)
	// A Forget that Redis has lost would bring back what was there before.
	restart(t, r, s)
	wantPages(t, th, made.report, 3)
	wantPages(t, th, made.report, 3)
	// The fence of ForgetAll is in the view's key: without it nothing counts.
	if err := s.Client().Del(t.Context(), "mythic:view:through:reports").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := th.Do(t.Context(), "b", made.report); err != nil {
		t.Fatal(err)
	}
	wantPages(t, th, made.report, 5)
}
