package cache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

type report struct {
	Title string
	Pages int
}

// long is longer than any test: what ends in its time did not wait for it.
const long = time.Hour

// through makes a Through of reports that waits for Redis for as long as it takes,
// so that no slow machine makes it call without a lease. Waiters hear.
func through(t *testing.T, s *cache.Store, o cache.ThroughOptions[report]) *cache.Through[report] {
	t.Helper()
	if o.View == "" {
		o.View = "reports"
	}
	if o.TTL == 0 {
		o.TTL = long
	}
	if o.RedisFor == 0 {
		o.RedisFor = time.Minute
	}
	th, err := cache.NewThrough(s, listen(t, s), o)
	if err != nil {
		t.Fatal(err)
	}
	return th
}

// calls counts the calls of a function that returns as many pages.
type calls struct{ n atomic.Int64 }

func (c *calls) report(context.Context) (report, error) {
	return report{Title: "a", Pages: int(c.n.Add(1))}, nil
}

func (c *calls) expect(t *testing.T, want int64) {
	t.Helper()
	if got := c.n.Load(); got != want {
		t.Fatalf("%d calls were made, not %d", got, want)
	}
}

func wantPages(t *testing.T, th *cache.Through[report], call func(context.Context) (report, error), pages int) {
	t.Helper()
	got, err := th.Do(t.Context(), "a", call)
	if err != nil || got.Pages != pages {
		t.Fatalf("%+v, %v; want %d pages", got, err, pages)
	}
}

// blocked is a call that says that it has begun and waits to go on.
type blocked struct {
	calls

	begun, goOn chan struct{}
}

func newBlocked() *blocked { return &blocked{begun: make(chan struct{}), goOn: make(chan struct{})} }

func (b *blocked) report(ctx context.Context) (report, error) {
	close(b.begun)
	select {
	case <-b.goOn:
		return b.calls.report(ctx)
	case <-ctx.Done():
		return report{}, ctx.Err()
	}
}

// asked is a Do in a goroutine of its own.
type asked struct {
	report report
	err    error
}

func ask(ctx context.Context, th *cache.Through[report], call func(context.Context) (report, error)) <-chan asked {
	c := make(chan asked, 1)
	go func() {
		var a asked
		a.report, a.err = th.Do(ctx, "a", call)
		c <- a
	}()
	return c
}

func hear[V any](t *testing.T, c <-chan V) V {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing was heard for a minute")
		panic("unreachable")
	}
}

// missed waits until a store has looked for reports so often in vain.
func missed(t *testing.T, s *cache.Store, times uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d misses", times), func() bool { return s.Counts()["through:reports"].Misses >= times })
}

func TestThroughCallsOnceForAllWhoAsk(t *testing.T) {
	r := testserver.NewRedis(t)
	const askers = 100
	var stores []*cache.Store
	var all []*cache.Through[report]
	for range 3 {
		s := newStore(t, r, cache.Options{})
		stores, all = append(stores, s), append(all, through(t, s, cache.ThroughOptions[report]{LeaseFor: time.Minute}))
	}
	var made calls
	// Who comes while the call is made waits for it.
	everybody := make(chan struct{})
	call := func(ctx context.Context) (report, error) {
		<-everybody
		return made.report(ctx)
	}
	var wg sync.WaitGroup
	for i := range 3 * askers {
		wg.Go(func() {
			if got, err := all[i%3].Do(t.Context(), "a", call); err != nil || got != (report{"a", 1}) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	for _, s := range stores {
		missed(t, s, askers)
	}
	close(everybody)
	wg.Wait()
	made.expect(t, 1)
	for _, th := range all {
		wantPages(t, th, made.report, 1)
		if n := th.Bypassed(); n != 0 {
			t.Errorf("%d calls were made without a lease", n)
		}
	}
	made.expect(t, 1)
}

func TestThroughKeepsKeysAndViewsApart(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	th, other := through(t, s, cache.ThroughOptions[report]{}), through(t, s, cache.ThroughOptions[report]{View: "books"})
	var made calls
	wantPages(t, th, made.report, 1)
	wantPages(t, other, made.report, 2)
	if got, err := th.Do(t.Context(), "b", made.report); err != nil || got.Pages != 3 {
		t.Errorf("another key: %+v, %v", got, err)
	}
	put(t, s, "a", at(20), "not a report") // in a view of the views file with that name
	wantPages(t, other, made.report, 2)
	expect(t, s, "a", cache.Hit, "", "not a report")
}

// A process that died in a call is replaced when its lease has run out. One that
// lives, however slow, is waited for.
func TestThroughReplacesTheDeadAndWaitsForTheSlow(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	const leaseFor = 600 * time.Millisecond
	o := cache.ThroughOptions[report]{LeaseFor: leaseFor}
	th, patient := through(t, s, o), through(t, other, o)

	if _, err := s.Lease(t.Context(), &view.View{Name: "through:reports", Model: true}, "a", leaseFor); err != nil {
		t.Fatal(err)
	}
	var made calls
	wantPages(t, th, made.report, 1)
	if th.Bypassed() != 0 {
		t.Error("it did not wait for the lease to run out")
	}
	if err := th.Forget(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}

	slow := newBlocked()
	first := ask(t.Context(), th, slow.report)
	hear(t, slow.begun)
	second := ask(t.Context(), patient, made.report)
	time.AfterFunc(4*leaseFor, func() { close(slow.goOn) })
	if a, b := hear(t, first), hear(t, second); a.err != nil || b.err != nil || a.report.Pages != 1 || b.report != a.report {
		t.Errorf("the slow one has %+v, who waited %+v", a, b)
	}
	made.expect(t, 1)
}

// An answer that another process puts is heard of, not found by looking.
func TestThroughIsWoken(t *testing.T) {
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	th, waiting := through(t, s, cache.ThroughOptions[report]{}), through(t, other, cache.ThroughOptions[report]{})
	quickest := long
	for range 20 {
		slow := newBlocked()
		first := ask(t.Context(), th, slow.report)
		hear(t, slow.begun)
		before := other.Counts()["through:reports"].Misses
		second := ask(t.Context(), waiting, nil)
		missed(t, other, before+1)
		close(slow.goOn)
		hear(t, first)
		put := time.Now()
		hear(t, second)
		quickest = min(quickest, time.Since(put))
		if err := th.Forget(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	if quickest > 20*time.Millisecond {
		t.Errorf("the quickest of 20 heard of the answer after %s", quickest)
	}
}

func TestThroughForgetWinsOverACallUnderWay(t *testing.T) {
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	th, elsewhere := through(t, s, cache.ThroughOptions[report]{}), through(t, other, cache.ThroughOptions[report]{})
	old := newBlocked()
	before := ask(t.Context(), th, old.report)
	hear(t, old.begun)
	if err := elsewhere.Forget(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	renewed := func(context.Context) (report, error) { return report{Pages: 100}, nil }
	const askers = 50
	var after []<-chan asked
	for range askers {
		after = append(after, ask(t.Context(), th, renewed))
	}
	missed(t, s, askers+1)
	close(old.goOn)
	if a := hear(t, before); a.err != nil || a.report.Pages != 1 {
		t.Errorf("who asked before has %+v", a)
	}
	for _, c := range after {
		if a := hear(t, c); a.err != nil || a.report.Pages != 100 {
			t.Errorf("who asked after has %+v", a)
		}
	}
	wantPages(t, elsewhere, renewed, 100)

	if err := th.Forget(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	var made calls
	wantPages(t, elsewhere, made.report, 1)
	if err := th.ForgetAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPages(t, elsewhere, made.report, 2)
	wantPages(t, th, made.report, 2)
}

// ForgetAll, too, wins over a call.
func TestThroughForgetAllWinsOverACallUnderWay(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	th := through(t, s, cache.ThroughOptions[report]{})
	old := newBlocked()
	before := ask(t.Context(), th, old.report)
	hear(t, old.begun)
	if err := th.ForgetAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(old.goOn)
	hear(t, before)
	wantPages(t, th, old.calls.report, 2)
}

// Past its TTL a result is not served, though the store may keep it for longer.
func TestThroughExpires(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{StaleFor: time.Hour})
	th := through(t, s, cache.ThroughOptions[report]{TTL: 300 * time.Millisecond})
	var made calls
	wantPages(t, th, made.report, 1)
	eventually(t, "another call", func() bool {
		got, err := th.Do(t.Context(), "a", made.report)
		if err != nil {
			t.Fatal(err)
		}
		return got.Pages == 2
	})
	if n := s.Counts()["through:reports"].Stale; n == 0 {
		t.Error("what had expired was not even there")
	}
	names, err := s.Client().Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if ttl, err := s.Client().PTTL(t.Context(), name).Result(); err != nil || ttl < 0 && !strings.HasPrefix(name, "mythic:view:") {
			t.Errorf("%s has a TTL of %s, %v", name, ttl, err)
		}
	}
}

func TestThroughDoesNotKeepErrors(t *testing.T) {
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	// A lease that is not given back would hold up the test.
	o := cache.ThroughOptions[report]{LeaseFor: long, OnError: func(_ context.Context, _ string, err error) { t.Error(err) }}
	th, elsewhere := through(t, s, o), through(t, other, o)
	errBroken := errors.New("broken")
	if _, err := th.Do(t.Context(), "a", func(context.Context) (report, error) { return report{Pages: 7}, errBroken }); err != errBroken { //nolint:errorlint // as it is
		t.Fatalf("the error is %v", err)
	}
	missing := func(context.Context) (report, error) { return report{}, fmt.Errorf("report a: %w", cache.ErrNotFound) }
	if _, err := elsewhere.Do(t.Context(), "a", missing); !errors.Is(err, cache.ErrNotFound) {
		t.Fatalf("the error is %v", err)
	}
	var made calls
	wantPages(t, elsewhere, made.report, 1)
}

// Who waits in this process for a call that fails has its error, too.
func TestThroughSharesErrors(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	th := through(t, s, cache.ThroughOptions[report]{})
	var made atomic.Int64
	const askers = 100
	everybody := make(chan struct{})
	errBroken := errors.New("broken")
	call := func(context.Context) (report, error) {
		made.Add(1)
		<-everybody
		return report{}, errBroken
	}
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			if _, err := th.Do(t.Context(), "a", call); !errors.Is(err, errBroken) {
				t.Error(err)
			}
		})
	}
	missed(t, s, askers)
	close(everybody)
	wg.Wait()
	// Some may have asked when the first call was under way, and a few have joined
	// after a second.
	if n := made.Load(); n > askers/4 {
		t.Errorf("%d calls were made", n)
	}
}

func TestThroughKeepsNotFound(t *testing.T) {
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	o := cache.ThroughOptions[report]{NotFound: long}
	th, elsewhere := through(t, s, o), through(t, other, o)
	missing := func(context.Context) (report, error) {
		return report{}, fmt.Errorf("no report a: %w", cache.ErrNotFound)
	}
	if _, err := th.Do(t.Context(), "a", missing); !errors.Is(err, cache.ErrNotFound) || !strings.Contains(err.Error(), "no report a") {
		t.Fatal(err)
	}
	var made calls
	if got, err := elsewhere.Do(t.Context(), "a", made.report); !errors.Is(err, cache.ErrNotFound) || got != (report{}) {
		t.Fatalf("%+v, %v", got, err)
	}
	made.expect(t, 0)
	if err := elsewhere.Forget(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	wantPages(t, th, made.report, 1)
}

func TestThroughPassesPanicsOn(t *testing.T) {
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	o := cache.ThroughOptions[report]{LeaseFor: long}
	th, elsewhere := through(t, s, o), through(t, other, o)
	begun, goOn := make(chan struct{}), make(chan struct{})
	fell := make(chan any, 1)
	go func() {
		defer func() { fell <- recover() }()
		_, _ = th.Do(t.Context(), "a", func(context.Context) (report, error) {
			close(begun)
			<-goOn
			panic("fell over")
		})
	}()
	hear(t, begun)
	var made calls
	waiting := ask(t.Context(), elsewhere, made.report) // for the lease
	missed(t, other, 1)
	late := ask(t.Context(), th, made.report) // for the call
	missed(t, s, 3)
	close(goOn)
	if value := hear(t, fell); value != "fell over" {
		t.Errorf("recovered %v", value)
	}
	for _, c := range []<-chan asked{waiting, late} {
		if a := hear(t, c); a.err != nil || a.report.Pages != 1 {
			t.Errorf("who waited has %+v", a)
		}
	}
	made.expect(t, 1)
}
