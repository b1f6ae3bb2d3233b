package consumers

import (
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

func newInvalidator(w *world) *Invalidator {
	w.Helper()
	i, err := NewInvalidator(w.store, w.views, InvalidatorOptions{Metrics: w.metrics})
	if err != nil {
		w.Fatal(err)
	}
	return i
}

func TestInvalidatorDropsWhatHasNotSeenTheChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	i := newInvalidator(w)
	w.set("a", 1)
	w.set("b", 1)
	w.fill("thing", "a")
	early := w.set("a", 2)
	w.fill("thing", "b")

	batch := messages(changed("thing", "a", early), changed("thing", "a", early), changed("thing", "nobody", early))
	w.ends(i.Handle(w.ctx, batch), nil, nil, nil)
	w.wants("thing", "a", "")
	w.wants("thing", "b", `{"n":1}`)

	w.fill("thing", "a")
	w.ends(i.Handle(w.ctx, batch), nil, nil, nil)
	w.wants("thing", "a", `{"n":2}`) // late and repeated: it has seen the change
	if q := i.Staleness(); q.Count != 1 || q.P50 <= 0 || q.P999 > 60 {
		t.Errorf("staleness %+v", q)
	}
}

// Staleness is of what was shown: of entries that a change ended and that are older than
// the row. What comes late or again, as when the outbox is sent anew, has ended nothing.
func TestStalenessIsOfWhatWasShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	i := newInvalidator(w)
	count := func(what string, want uint64, batch ...event.Event) {
		t.Helper()
		before := i.Staleness().Count
		w.ends(i.Handle(w.ctx, messages(batch...)), make([]error, len(batch))...)
		if got := i.Staleness().Count - before; got != want {
			t.Errorf("%s: measured %d times, want %d", what, got, want)
		}
	}
	aged := func(e event.Event, age time.Duration) event.Event {
		e.Time = e.Time.Add(-age)
		return e
	}
	w.set("a", 1)
	count("a key that is not cached", 0, changed("thing", "a", w.now()))
	w.fill("thing", "a")
	changes := []event.Event{changed("thing", "a", w.set("a", 2)), changed("thing", "a", w.set("a", 3))}
	count("two changes of an entry", 1, changes...)
	count("the same again", 0, changes...)
	w.fill("thing", "a")
	count("the same once the entry has seen them", 0, changes...)
	count("a row that is older than the entry", 0, aged(changed("thing", "a", w.set("a", 4)), time.Hour))
	w.fill("thing", "a")
	count("an app's event", 0, event.Event{Type: "things.forgotten", Subject: "a", Time: time.Now()})
	w.exec("SELECT pg_current_xact_id()")
	whole := changed("thing", "", w.now())
	count("a whole view", 1, whole)
	count("a whole view again", 0, whole)
	if q := i.Staleness(); q.P999 > 60 {
		t.Errorf("staleness %+v", q)
	}
}

func TestInvalidatorTakesTheNewestOfABatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	i := newInvalidator(w)
	early := w.set("a", 1)
	w.fill("thing", "a")
	late := w.set("a", 2)
	w.ends(i.Handle(w.ctx, messages(changed("thing", "a", early), changed("thing", "a", late), changed("thing", "a", early))), nil, nil, nil)
	w.wants("thing", "a", "")
}

// An app's event has no snapshot: it removes the value and the lease, so that
// what was read before it cannot be put after it.
func TestAppsEventRemovesWhateverIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	i := newInvalidator(w)
	w.set("a", 1)
	w.fill("thing", "a")
	forgotten := event.Event{Type: "things.forgotten", Subject: "a"}
	w.ends(i.Handle(w.ctx, messages(forgotten, event.Event{Type: "things.unheard", Subject: "a"})), nil, nil)
	w.wants("thing", "a", "")

	var lease cache.Lease
	testserver.Eventually(t, "the pause after the fill is over", func() (err error) {
		lease, err = w.store.Lease(w.ctx, w.view("thing"), "a", time.Minute)
		return err
	})
	loaded, err := w.loader.Load(w.ctx, w.view("thing"), "a")
	if err != nil {
		t.Fatal(err)
	}
	w.ends(i.Handle(w.ctx, messages(forgotten)), nil)
	if _, err := w.store.Put(w.ctx, lease, cache.Fill{Version: loaded.Version, Snapshot: loaded.Snapshot, Body: loaded.Body}); err == nil {
		t.Error("a value from before the event was put after it")
	}
}

func TestEventOfAWholeViewFencesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	i := newInvalidator(w)
	for _, id := range []string{"a", "b"} {
		w.set(id, 1)
		w.fill("thing", id)
		w.fill("slow", id)
	}
	at := w.set("c", 1)
	w.ends(i.Handle(w.ctx, messages(changed("thing", "", at))), nil)
	for _, id := range []string{"a", "b"} {
		w.wants("thing", id, "")
		w.wants("slow", id, `{"n":1,"w":""}`)
	}
	w.fill("thing", "a")
	w.ends(i.Handle(w.ctx, messages(changed("thing", "", at))), nil)
	w.wants("thing", "a", `{"n":1}`)
}

func TestInvalidatorRejectsWhatNoRepetitionHelps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	i := newInvalidator(w)
	w.set("a", 1)
	w.fill("thing", "a")
	at := w.set("a", 2)
	unversioned := event.Event{Type: "things.changed", View: "thing"}
	garbled := event.Event{Type: "things.changed", View: "thing", Subject: "a", Version: "later"}
	malformed := event.Event{Type: "things"}
	elsewhere := changed("unknown", "a", at)
	w.ends(i.Handle(w.ctx, messages(unversioned, garbled, malformed, elsewhere, changed("thing", "a", at))),
		stream.ErrReject, stream.ErrReject, stream.ErrReject, nil, nil)
	w.wants("thing", "a", "")
}

func TestInvalidatorPausesWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	i := newInvalidator(w)
	at := w.set("a", 1)
	w.redis.Stop()
	w.ends(i.Handle(w.ctx, messages(changed("thing", "a", at), changed("thing", "", at), changed("slow", "a", at))),
		stream.ErrPause, stream.ErrPause, stream.ErrPause)
}

func TestQuantilesAreThoseOfTheLastMinutes(t *testing.T) {
	t.Parallel()
	s, err := newStaleness(nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	if q := s.quantiles(now); *q != (cache.Quantiles{}) {
		t.Errorf("of nothing: %+v", q)
	}
	for n := range 1000 {
		s.observe("thing", now, now.Add(-time.Duration(n+1)*time.Millisecond))
	}
	near := func(got, want float64) bool { return got >= want && got <= want*bucketWidth*1.001 }
	if q := s.quantiles(now); q.Count != 1000 || !near(q.P50, 0.5) || !near(q.P99, 0.99) || !near(q.P999, 0.999) {
		t.Errorf("of 1 to 1000 ms: %+v", q)
	}
	s.observe("thing", now.Add(windowSpan), now.Add(windowSpan+time.Second)) // a clock ahead of ours
	if q := s.quantiles(now.Add(windowSpan)); q.Count != 1001 || !near(q.P50, 0.5) {
		t.Errorf("a minute later: %+v", q)
	}
	if q := s.quantiles(now.Add(2 * windowSpan)); q.Count != 1 || q.P999 != bucketFloor {
		t.Errorf("two minutes later: %+v", q)
	}
	s.observe("thing", now.Add(2*windowSpan), now)
	if q := s.quantiles(now.Add(time.Hour)); q.Count != 0 {
		t.Errorf("an hour later: %+v", q)
	}
}
