package cache_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
)

// world is a database with a few keys, the fills under way, and the oracle: what
// a reader must have seen. A body is the number of the key's last change that
// its snapshot saw.
type world struct {
	store *cache.Store
	ctx   context.Context
	run   string // keeps the keys of one check apart from the others'
	next  uint64 // transaction id
	keys  map[string]*truth
	fills []pending
	past  []cache.Change // all that was ever committed, to be repeated
	fence uint64         // what the view was fenced at
}

// truth is what is known of one key.
type truth struct {
	changed  uint64 // the version of its last committed change
	applied  uint64 // of the newest change that was applied
	removals int    // changes without a version that were applied
	served   uint64 // the newest version that was served while it was fresh
}

// pending is a fill whose loader is slow.
type pending struct {
	lease    cache.Lease
	snapshot version.Snapshot
	removals int // that its key had seen when the lease was taken
	loaded   bool
}

func (w *world) key(t *rapid.T) string {
	key := w.run + rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
	if w.keys[key] == nil {
		w.keys[key] = &truth{}
	}
	return key
}

// commit changes a row; the event's version is that of a snapshot that sees it,
// and often one that came later.
func (w *world) commit(t *rapid.T) {
	key := w.key(t)
	w.next++
	w.keys[key].changed = w.next
	w.past = append(w.past, cache.Change{View: books(), Key: key, Version: at(w.next).Version()})
}

// apply delivers one or several of the events, in any order, again and again.
func (w *world) apply(t *rapid.T) {
	if len(w.past) == 0 {
		return
	}
	changes := rapid.SliceOfN(rapid.SampledFrom(w.past), 1, 4).Draw(t, "events")
	if _, err := w.store.Invalidate(w.ctx, changes); err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		truth := w.keys[change.Key]
		truth.applied = max(truth.applied, xmaxOf(change.Version))
	}
}

func (w *world) remove(t *rapid.T) {
	key := w.key(t)
	if _, err := w.store.Invalidate(w.ctx, []cache.Change{{View: books(), Key: key}}); err != nil {
		t.Fatal(err)
	}
	w.keys[key].removals++
}

func (w *world) fenceView(t *rapid.T) {
	at := at(rapid.Uint64Range(1, w.next+1).Draw(t, "fence"))
	if err := w.store.Fence(w.ctx, books(), at.Version()); err != nil {
		t.Fatal(err)
	}
	w.fence = max(w.fence, at.Xmax)
}

// begin takes a lease, long or so short that another may take it soon.
func (w *world) begin(t *rapid.T) {
	key := w.key(t)
	life := rapid.SampledFrom([]time.Duration{time.Millisecond, time.Minute}).Draw(t, "life")
	l, err := w.store.Lease(w.ctx, books(), key, life)
	if errors.Is(err, cache.ErrLeased) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	w.fills = append(w.fills, pending{lease: l, removals: w.keys[key].removals})
}

// load takes the snapshot of a fill that has its lease.
func (w *world) load(t *rapid.T) {
	if len(w.fills) == 0 {
		return
	}
	f := &w.fills[rapid.IntRange(0, len(w.fills)-1).Draw(t, "fill")]
	if !f.loaded {
		f.snapshot, f.loaded = at(w.next), true
	}
}

// finish puts what a fill has loaded, perhaps long ago.
func (w *world) finish(t *rapid.T) {
	if len(w.fills) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.fills)-1).Draw(t, "fill")
	f := w.fills[i]
	if !f.loaded {
		return
	}
	w.fills = append(w.fills[:i], w.fills[i+1:]...)
	if rapid.IntRange(0, 4).Draw(t, "gives up") == 0 {
		if err := w.store.Abandon(w.ctx, f.lease, "gave up"); err != nil {
			t.Fatal(err)
		}
		return
	}
	body := fmt.Sprintf("%d %d", f.snapshot.Xmax, f.removals)
	_, err := w.store.Put(w.ctx, f.lease, fill(f.snapshot, body))
	if err != nil && !errors.Is(err, cache.ErrRefused) {
		t.Fatal(err)
	}
}

// look reads a key and asks the oracle.
func (w *world) look(t *rapid.T) {
	key := w.key(t)
	r, err := w.store.Read(w.ctx, cache.Query{View: books(), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	truth := w.keys[key]
	if r.Status == cache.Miss {
		return
	}
	var seen uint64
	var removals int
	if _, err := fmt.Sscan(string(r.Entry.Body), &seen, &removals); err != nil {
		t.Fatal(err)
	}
	switch {
	case seen < truth.applied:
		t.Fatalf("%s: served as of %d; a change at %d was applied", key, seen, truth.applied)
	case seen < w.fence:
		t.Fatalf("%s: served as of %d; the view was fenced at %d", key, seen, w.fence)
	case removals < truth.removals:
		t.Fatalf("%s: served what was leased after %d removals of %d", key, removals, truth.removals)
	case seen < truth.served:
		t.Fatalf("%s: served as of %d, after %d", key, seen, truth.served)
	}
	truth.served = seen
}

// settle applies all that is left and fills once more: the cache must then hold
// exactly what the database does, so refusing everything does not pass.
func (w *world) settle(t *rapid.T) {
	if len(w.past) > 0 {
		if _, err := w.store.Invalidate(w.ctx, w.past); err != nil {
			t.Fatal(err)
		}
	}
	for key, truth := range w.keys {
		truth.applied = truth.changed
		for _, f := range w.fills {
			if err := w.store.Abandon(w.ctx, f.lease, "the end"); err != nil {
				t.Fatal(err)
			}
		}
		l, err := w.store.Lease(w.ctx, books(), key, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		body := strconv.FormatUint(w.next, 10) + " 0"
		if _, err := w.store.Put(w.ctx, l, fill(at(max(w.next, w.fence)), body)); err != nil {
			t.Fatalf("%s: the last put: %v", key, err)
		}
		r, err := w.store.Read(w.ctx, cache.Query{View: books(), Key: key})
		if err != nil || r.Status != cache.Hit || string(r.Entry.Body) != body {
			t.Fatalf("%s: read %+v, %v", key, r, err)
		}
	}
}

func xmaxOf(v version.Version) uint64 {
	x, err := strconv.ParseUint(v.String()[12:28], 16, 64)
	if err != nil {
		panic(err)
	}
	return x
}

// No interleaving of fills, repeated, late and shuffled events, removals and
// fences serves a value older than the newest change that was applied.
func TestNothingStaleComesBack(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{StaleFor: time.Hour})
	ctx := t.Context()
	checks := 0
	rapid.Check(t, func(t *rapid.T) {
		checks++
		// A view's fence never goes down, so each check starts on a new one.
		if err := s.Client().Del(ctx, "mythic:view:books").Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.Fence(ctx, books(), at(1).Version()); err != nil {
			t.Fatal(err)
		}
		w := &world{store: s, ctx: ctx, run: fmt.Sprintf("%d:", checks), next: 2, keys: map[string]*truth{}}
		t.Repeat(map[string]func(*rapid.T){
			"commit": w.commit, "apply": w.apply, "apply more": w.apply, "remove": w.remove, "fence": w.fenceView,
			"begin": w.begin, "begin another": w.begin, "load": w.load, "finish": w.finish, "finish another": w.finish,
			"read": w.look, "": w.look,
		})
		w.settle(t)
	})
}

// The scripts order versions as Compare does.
func TestScriptsCompareAsGoDoes(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	ctx := t.Context()
	draw := func(t *rapid.T, name string) version.Version {
		word := rapid.SampledFrom([]uint64{3, 0xa, 0xaa, 0xdd, 0xff, 1<<31 - 1, 1 << 32, 1<<53 - 1, 1 << 53, 1<<53 + 1, 1<<63 - 1, 1 << 63})
		snapshot := version.Snapshot{Epoch: word.Draw(t, name+" epoch") & (1<<48 - 1), Xmin: 1, Xmax: word.Draw(t, name+" xmax")}
		for xid := range rapid.Uint64Max(2).Draw(t, name+" open") {
			snapshot.Xip = append(snapshot.Xip, 1+xid)
		}
		return snapshot.Version()
	}
	checks := 0
	rapid.Check(t, func(t *rapid.T) {
		checks++
		a, b := draw(t, "a"), draw(t, "b")
		changes := []cache.Change{{View: books(), Key: strconv.Itoa(checks), Version: a}, {View: books(), Key: strconv.Itoa(checks), Version: b}}
		want := 1
		if b.Compare(a) > 0 {
			want = 2
		}
		if got, err := s.Invalidate(ctx, changes); err != nil || got != want {
			t.Fatalf("%s, then %s: %d applied, %v; want %d", a, b, got, err, want)
		}
	})
}
