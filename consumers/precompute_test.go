package consumers

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

func (w *world) precomputer(patience time.Duration) *Precomputer {
	return NewPrecomputer(w.store, w.filler, w.views, PrecomputerOptions{Patience: patience})
}

func TestPrecomputerLoadsWhatChangedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	p := w.precomputer(0)
	w.set("a", 1)
	w.fill("thing", "a")
	var batch []*message.Message
	for n := range 50 {
		batch = append(batch, messages(changed("thing", "a", w.set("a", n+2)))...)
	}
	batch = append(batch, messages(
		changed("thing", "b", w.now()),      // never read before
		changed("slow", "a", w.now()),       // only to be invalidated
		changed("thing", "", w.now()),       // names no key
		changed("unknown", "a", w.now()),    // another release's
		event.Event{Type: "things.changed"}, // malformed
	)...)
	want := make([]error, len(batch))
	want[len(want)-1] = stream.ErrReject
	w.ends(p.Handle(w.ctx, batch), want...)
	w.wants("thing", "a", `{"n":51}`)
	w.wants("thing", "b", "absent")
	if n := w.loads(); n != 3 {
		t.Errorf("%d loads, want one before the batch and one for each of two keys", n)
	}
	w.ends(p.Handle(w.ctx, batch[:50]), make([]error, 50)...)
	if n := w.loads(); n != 3 {
		t.Errorf("%d loads after changes that the entry has seen", n)
	}
}

// 1. a filler takes the lease and reads the row;
// 2. the row changes, and the event reaches group "precompute" first;
// 3. the filler puts the old row, which nothing has fenced yet;
// 4. the event must come back, or the old row would stay until it expires.
func TestPrecomputerComesBackAfterAnotherWhoReadBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	p := w.precomputer(20 * time.Millisecond)
	w.set("a", 1)
	lease, err := w.store.Lease(w.ctx, w.view("thing"), "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := w.loader.Load(w.ctx, w.view("thing"), "a")
	if err != nil {
		t.Fatal(err)
	}
	late := messages(changed("thing", "a", w.set("a", 2)))
	w.ends(p.Handle(w.ctx, late), stream.ErrPause)
	if _, err := w.store.Put(w.ctx, lease, cache.Fill{Version: loaded.Version, Snapshot: loaded.Snapshot, Body: loaded.Body}); err != nil {
		t.Fatal(err)
	}
	w.wants("thing", "a", `{"n":1}`)
	w.ends(p.Handle(w.ctx, late), nil)
	w.wants("thing", "a", `{"n":2}`)
}

func TestPrecomputerWaitsForAShortLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	at := w.set("a", 1)
	if _, err := w.store.Lease(w.ctx, w.view("thing"), "a", 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	w.ends(w.precomputer(time.Minute).Handle(w.ctx, messages(changed("thing", "a", at))), nil)
	w.wants("thing", "a", `{"n":1}`)
}

// A newer change has an event of its own; it alone is worth a load.
func TestPrecomputerLeavesWhatIsOvertaken(t *testing.T) {
	t.Parallel()
	for name, overtake := range map[string]func(w *world, at cache.Change){
		"the key": func(w *world, at cache.Change) {
			if _, err := w.store.Invalidate(w.ctx, []cache.Change{at}); err != nil {
				w.Fatal(err)
			}
		},
		"its view": func(w *world, at cache.Change) {
			if err := w.store.Fence(w.ctx, at.View, at.Version); err != nil {
				w.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, postgres, things)
			early := w.set("a", 1)
			overtake(w, cache.Change{View: w.view("thing"), Key: "a", Version: w.set("a", 2)})
			if _, err := w.store.Lease(w.ctx, w.view("thing"), "a", time.Minute); err != nil {
				t.Fatal(err)
			}
			w.ends(w.precomputer(time.Minute).Handle(w.ctx, messages(changed("thing", "a", early))), nil)
			if n := w.loads(); n != 0 {
				t.Errorf("%d loads", n)
			}
		})
	}
}

func TestPrecomputerPausesWhilePostgresIsAwayAndInvalidationGoesOn(t *testing.T) {
	t.Parallel()
	pg := testserver.NewPostgres(t, nil)
	w := newWorld(t, pg, things)
	p, i := w.precomputer(0), newInvalidator(w)
	w.set("a", 1)
	w.fill("thing", "a")
	batch := messages(changed("thing", "a", w.set("a", 2)))
	pg.Stop()
	w.ends(p.Handle(w.ctx, batch), stream.ErrPause)
	w.ends(i.Handle(w.ctx, batch), nil)
	w.wants("thing", "a", "")
	if err := pg.Start(w.ctx); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "precompute again", func() error {
		if errs := p.Handle(w.ctx, batch); errs != nil {
			return errs[0]
		}
		return nil
	})
	w.wants("thing", "a", `{"n":2}`)
}

func TestPrecomputerComesBackToABusyView(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things+`
  other:
    key: [id]
    on_change: precompute
    load: SELECT json_build_object('n', n) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed}
`)
	p := w.precomputer(10 * time.Millisecond)
	at := w.set("a", 1)
	release := w.hold("thing")
	batch := messages(changed("thing", "a", at), changed("other", "a", at))
	w.ends(p.Handle(w.ctx, batch), stream.ErrLater, nil)
	w.wants("other", "a", `{"n":1}`)
	release()
	w.ends(p.Handle(w.ctx, batch), nil, nil)
	w.wants("thing", "a", `{"n":1}`)
}

// After a failover loads may still go to the old primary, whose epoch is older
// than the event's.
func TestPrecomputerPutsNothingOlderThanTheChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	ahead := version.Snapshot{Epoch: w.now().Epoch() + 1, Xmin: 3, Xmax: 3}.Version()
	w.ends(w.precomputer(0).Handle(w.ctx, messages(changed("thing", "a", ahead))), errAny)
	w.wants("thing", "a", "")
	w.fill("thing", "a") // the lease was given back
}

func TestLoadThatFailsCostsADelivery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	at := w.set("a", 1)
	w.exec("ALTER TABLE things RENAME n TO m")
	w.ends(w.precomputer(0).Handle(w.ctx, messages(changed("thing", "a", at))), errAny)
	w.ends(w.precomputer(0).Handle(w.ctx, messages(event.Event{Type: "things.changed", View: "thing", Subject: "a", Version: "x"})), stream.ErrReject)
}
