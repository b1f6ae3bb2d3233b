package cache_test

import (
	"sync"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

// heard keeps what a watch was told.
type heard chan cache.Filled

func (h heard) next(t *testing.T) cache.Filled {
	t.Helper()
	select {
	case f := <-h:
		return f
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was heard")
		return cache.Filled{}
	}
}

func TestAWatchHearsEveryAnnouncementOfItsKeyInOrder(t *testing.T) {
	r := testserver.NewRedis(t)
	s, other := newStore(t, r, cache.Options{}), newStore(t, r, cache.Options{})
	w := listen(t, other)
	of := func(key string) (heard, *cache.Watch) {
		h := make(heard, 100)
		return h, w.Watch("books", key, func(f cache.Filled) { h <- f })
	}
	first, watch := of("a")
	second, _ := of("a")
	elsewhere, _ := of("b")
	const fills = 20 // more than a Wait keeps
	for n := range fills {
		put(t, s, "a", at(uint64(20+n)), "x")
	}
	put(t, s, "b", at(20), "x")
	if f := elsewhere.next(t); f.Entry.Key != "b" || len(elsewhere) > 0 {
		t.Errorf("who watches b heard %+v, and %d more", f, len(elsewhere))
	}
	for n := range fills {
		for _, h := range []heard{first, second} {
			if f := h.next(t); f.Outcome != cache.Accepted || f.Entry.Version != at(uint64(20+n)).Version() {
				t.Fatalf("fill %d is heard as %+v", n, f)
			}
		}
	}
	watch.Cancel()
	watch.Cancel()
	put(t, s, "a", at(50), "x")
	second.next(t)
	if len(first) > 0 {
		t.Error("a watch hears after its end")
	}
	if w.Waiting() != 0 {
		t.Errorf("%d wait", w.Waiting())
	}
}

func TestWatchesComeAndGoWhileOthersHear(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	w := listen(t, s)
	h := make(heard, 1000)
	w.Watch("books", "a", func(f cache.Filled) { h <- f })
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					w.Watch("books", "a", func(cache.Filled) {}).Cancel()
				}
			}
		})
	}
	for n := range 100 {
		put(t, s, "a", at(uint64(20+n)), "x")
		if f := h.next(t); f.Entry.Version != at(uint64(20+n)).Version() {
			t.Fatalf("fill %d is heard as %+v", n, f)
		}
	}
	close(stop)
	group.Wait()
}

func TestALostSubscriptionIsToldWhenItBeginsAgain(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	w := listen(t, s)
	begins := w.Subscribed()
	select {
	case <-begins:
		t.Fatal("it has begun before it was lost")
	default:
	}
	for range 3 {
		if err := s.Client().Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-begins:
		case <-time.After(30 * time.Second):
			t.Fatal("nobody was told that the subscription has begun again")
		}
		begins = w.Subscribed()
	}
}

func TestLookReadsManyKeysAndCountsNone(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{StaleFor: time.Minute})
	put(t, s, "a", at(20), "x")
	put(t, s, "b", at(30), "y")
	if err := s.Client().Set(t.Context(), "mythic:books:{odd}", "no entry", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Client().LPush(t.Context(), "mythic:books:{list}", "x").Err(); err != nil {
		t.Fatal(err)
	}
	before := s.Counts()["books"]
	look := func(want ...string) {
		t.Helper()
		results, err := s.Look(t.Context(), books(), []string{"a", "none", "b", "odd", "list"})
		if err != nil || len(results) != len(want) {
			t.Fatalf("%d results: %v", len(results), err)
		}
		for i, r := range results {
			if got := r.Status.String() + " " + string(r.Entry.Body); got != want[i] || r.Now.IsZero() {
				t.Errorf("result %d is %q, want %q", i, got, want[i])
			}
		}
	}
	look("HIT x", "MISS ", "HIT y", "MISS ", "MISS ")
	marks := func() string {
		t.Helper()
		all, err := s.Marks(t.Context(), []*view.View{books(), answers()})
		if err != nil || len(all) != 2 {
			t.Fatal(all, err)
		}
		return all[0]
	}
	mark := marks()
	if marks() != mark {
		t.Error("the mark changes by itself")
	}
	fence(t, s, at(25).Version())
	if fenced := marks(); fenced == mark {
		t.Error("a fence leaves the mark as it was")
	} else {
		mark = fenced
	}
	look("MISS ", "MISS ", "HIT y", "MISS ", "MISS ")
	if err := s.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if marks() == mark {
		t.Error("a Redis that lost everything has the mark of before")
	}
	if after := s.Counts()["books"]; after.Hits != before.Hits || after.Misses != before.Misses {
		t.Errorf("looks were counted as reads: %+v, before %+v", after, before)
	}
}

// TestARestartIsAnotherMark restarts a Redis that keeps all it had: the views' keys are
// as before, and their entries are no longer known to be fresh.
func TestARestartIsAnotherMark(t *testing.T) {
	r := testserver.NewRedis(t, "--appendfsync", "always")
	s := newStore(t, r, cache.Options{})
	put(t, s, "a", at(20), "x")
	marks := func() string {
		t.Helper()
		all, err := s.Marks(t.Context(), []*view.View{books()})
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	before := marks()
	restart(t, r, s)
	if marks() == before {
		t.Error("the mark is that of before the restart")
	}
}
