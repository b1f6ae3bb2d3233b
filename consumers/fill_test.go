package consumers

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
)

func TestFillServesAndIsNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	heard := w.waiter("thing", "a")
	w.fill("thing", "a")
	w.wants("thing", "a", `{"n":1}`)
	if f := <-heard; f.Outcome != cache.Accepted || string(f.Entry.Body) != `{"n":1}` {
		t.Errorf("announced: %+v", f)
	}
	w.fill("thing", "a")
	if f := <-heard; f.Outcome != cache.Accepted || string(f.Entry.Body) != `{"n":1}` {
		t.Errorf("announced of what was there: %+v", f)
	}
	w.fill("thing", "b")
	w.wants("thing", "b", "absent")
	if n := w.loads(); n != 2 {
		t.Errorf("%d loads for two keys", n)
	}
	counts := w.store.Counts()["thing"]
	if counts.Hits != 2 || counts.Misses != 0 {
		t.Errorf("fills count as what readers find: %+v", counts)
	}
}

// The race of doc.go: the row changes while its fill loads.
func TestFillLosesAgainstAChangeThatItHasNotSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	heard := w.waiter("slow", "a")
	release := w.blockLoads()
	filled := make(chan error)
	go func() { filled <- w.filler.Fill(w.ctx, w.view("slow"), "a", FillOptions{}) }()
	w.loading()
	at := w.set("a", 2)
	if _, err := w.store.Invalidate(w.ctx, []cache.Change{{View: w.view("slow"), Key: "a", Version: at}}); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-filled; !errors.Is(err, cache.ErrRefused) {
		t.Errorf("the fill that read the old row ended with %v", err)
	}
	w.wants("slow", "a", "")
	if f := <-heard; f.Outcome != cache.Refused {
		t.Errorf("announced: %+v", f)
	}
	w.fill("slow", "a")
	w.wants("slow", "a", `{"n":2,"w":""}`)
}

func TestManyFillsMakeOneLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	release := w.blockLoads()
	var group sync.WaitGroup
	errs := make(chan error, 50)
	for range cap(errs) {
		group.Go(func() { errs <- w.filler.Fill(w.ctx, w.view("slow"), "a", FillOptions{}) })
	}
	w.loading()
	for range cap(errs) - 1 {
		if err := <-errs; !errors.Is(err, cache.ErrLeased) {
			t.Errorf("a fill beside the first one: %v", err)
		}
	}
	release()
	group.Wait()
	if err := <-errs; err != nil {
		t.Errorf("the first fill: %v", err)
	}
	if n := w.loads(); n != 1 {
		t.Errorf("%d loads", n)
	}
}

func TestLongLoadsKeepTheirLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	release := w.blockLoads()
	filled := make(chan error)
	go func() { filled <- w.filler.Fill(w.ctx, w.view("slow"), "a", FillOptions{}) }()
	w.loading()
	first, err := w.store.Inspect(w.ctx, w.view("slow"), "a")
	if err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "renew the lease", func() error {
		now, err := w.store.Inspect(w.ctx, w.view("slow"), "a")
		if err == nil && (now.Holder != first.Holder || now.Now.Before(first.Deadline)) {
			err = errors.New("the first lease would still last")
		}
		return err
	})
	if err := w.filler.Fill(w.ctx, w.view("slow"), "a", FillOptions{}); !errors.Is(err, cache.ErrLeased) {
		t.Errorf("a fill beside a load that takes longer than a lease: %v", err)
	}
	release()
	if err := <-filled; err != nil {
		t.Fatal(err)
	}
	w.wants("slow", "a", `{"n":1,"w":""}`)
}

func TestDeadHolderIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	if _, err := w.store.Lease(w.ctx, w.view("thing"), "a", 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := w.filler.Fill(w.ctx, w.view("thing"), "a", FillOptions{}); !errors.Is(err, cache.ErrLeased) {
		t.Fatalf("fill beside another's lease: %v", err)
	}
	testserver.Eventually(t, "fill after the lease", func() error {
		return w.filler.Fill(w.ctx, w.view("thing"), "a", FillOptions{})
	})
}

func TestFailedFillIsAnnouncedAndGivesItsLeaseBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	heard := w.waiter("thing", "a")
	w.exec("ALTER TABLE things RENAME n TO m")
	if err := w.filler.Fill(w.ctx, w.view("thing"), "a", FillOptions{}); sqlState(err) != "42703" {
		t.Errorf("fill from a column that is not there: %v", err)
	}
	if f := <-heard; f.Outcome != cache.Failed || f.Reason != "failed" {
		t.Errorf("announced: %+v", f)
	}
	w.exec("ALTER TABLE things RENAME m TO n")
	w.fill("thing", "a")
}

func TestFillThatIsCutShortGivesItsLeaseBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	release := w.blockLoads()
	ctx, cancel := context.WithCancel(w.ctx)
	filled := make(chan error)
	go func() { filled <- w.filler.Fill(ctx, w.view("slow"), "a", FillOptions{}) }()
	w.loading()
	cancel()
	if err := <-filled; !errors.Is(err, context.Canceled) {
		t.Errorf("the fill that was cut short: %v", err)
	}
	release()
	w.fill("slow", "a")
}

// What is damaged, or was written by a later release, is a miss to readers; so a fill
// has to make it anew, also in the pause after the load that brought it.
func TestFillReplacesWhatIsNotUnderstood(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	const name = "mythic:thing:{a}"
	damage := func(at int64, bytes string) func(redis.UniversalClient) error {
		return func(c redis.UniversalClient) error { return c.SetRange(w.ctx, name, at, bytes).Err() }
	}
	for what, damaged := range map[string]func(redis.UniversalClient) error{
		"a later schema": damage(0, "2"),
		"a later state":  damage(1, "x"),
		"no version":     damage(2, "Z"),
		"later flags":    damage(72, "\xff"),
		"a header alone": func(c redis.UniversalClient) error {
			return c.Eval(w.ctx, "return redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], 0, 71), 'KEEPTTL')", []string{name}).Err()
		},
		"a text": func(c redis.UniversalClient) error { return c.Set(w.ctx, name, "hello", time.Hour).Err() },
		"a list": func(c redis.UniversalClient) error {
			return errors.Join(c.Del(w.ctx, name).Err(), c.RPush(w.ctx, name, "x").Err())
		},
	} {
		w.fill("thing", "a")
		w.wants("thing", "a", `{"n":1}`)
		if err := damaged(w.store.Client()); err != nil {
			t.Fatal(err)
		}
		w.wants("thing", "a", "")
		if err := w.filler.Fill(w.ctx, w.view("thing"), "a", FillOptions{}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		w.wants("thing", "a", `{"n":1}`)
	}
}

// Whether an entry that is there will do is asked of its snapshot, in its epoch.
func TestWhichEntryWillDo(t *testing.T) {
	t.Parallel()
	seven := version.Snapshot{Epoch: 2, Xmin: 8, Xmax: 8} // has seen transaction 7, and not 8
	found := func(s cache.Status) cache.Inspection {
		return cache.Inspection{Status: s, Entry: cache.Entry{Version: seven.Version(), Snapshot: seven}}
	}
	later := version.Snapshot{Epoch: 2, Xmin: 9, Xmax: 9}.Version()
	for _, c := range []struct {
		name  string
		o     FillOptions
		found cache.Inspection
		want  bool
	}{
		{"fresh", FillOptions{}, found(cache.Hit), true},
		{"old", FillOptions{}, found(cache.Stale), false},
		{"none", FillOptions{AtLeast: seven.Version()}, found(cache.Miss), false},
		{"has seen the transaction", FillOptions{MinXid: &cache.MinXid{Xid: 7}}, found(cache.Hit), true},
		{"has seen it in its epoch", FillOptions{MinXid: &cache.MinXid{Epoch: 2, Xid: 7}}, found(cache.Hit), true},
		{"has not seen it", FillOptions{MinXid: &cache.MinXid{Xid: 8}}, found(cache.Hit), false},
		{"is of another epoch", FillOptions{MinXid: &cache.MinXid{Epoch: 3, Xid: 7}}, found(cache.Hit), false},
		{"has seen the change, though it is old", FillOptions{AtLeast: seven.Version()}, found(cache.Stale), true},
		{"has not seen the change", FillOptions{AtLeast: later}, found(cache.Hit), false},
		{"is to be replaced", FillOptions{Instead: &Replaced{}}, found(cache.Hit), false},
	} {
		if got := c.o.accept(c.found); got != c.want {
			t.Errorf("an entry that %s: %v", c.name, got)
		}
	}
}
