package consumers

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// early is a request to make an entry anew while it is still fresh.
func early(e cache.Entry) event.Event {
	return missed(e.View, e.Key, fmt.Sprintf(`{"instead":%q,"saved":"%d"}`, e.Version, e.Saved.UnixMilli()))
}

func (w *world) entry(name, key string) cache.Entry {
	w.Helper()
	found, err := w.store.Inspect(w.ctx, w.view(name), key)
	if err != nil {
		w.Fatal(err)
	}
	return found.Entry
}

// A fresh entry is made anew for who asks for that, once: only while it is the very
// entry that was asked about.
func TestEntryIsMadeAnewOnceBeforeItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.fill("thing", "a")
	first := w.entry("thing", "a")
	w.set("a", 2) // nobody drops the entry, so what is read shows whether it was made anew
	f := w.fills()
	w.ends(f.Handle(w.ctx, messages(missed("thing", "a", ""))), nil)
	w.wants("thing", "a", `{"n":1}`)
	w.ends(f.Handle(w.ctx, messages(early(first), early(first))), nil, nil)
	w.wants("thing", "a", `{"n":2}`)
	w.set("a", 3)
	w.ends(f.Handle(w.ctx, messages(early(first))), nil) // of another process, which was slower
	w.wants("thing", "a", `{"n":2}`)
	second := w.entry("thing", "a")
	w.exec("SELECT pg_current_xact_id()")
	if _, err := w.store.Invalidate(w.ctx, []cache.Change{{View: w.view("thing"), Key: "a", Version: w.now()}}); err != nil {
		t.Fatal(err)
	}
	w.ends(f.Handle(w.ctx, messages(early(second))), nil)
	w.wants("thing", "a", "")
	if n := w.loads(); n != 2 {
		t.Errorf("%d loads, want two", n)
	}
}

func TestRequestsToMakeAnewAreReadStrictly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.fill("thing", "a")
	at := w.entry("thing", "a").Version.String()
	w.ends(w.fills().Handle(w.ctx, messages(
		missed("thing", "a", `{"instead":"now","saved":"5"}`),
		missed("thing", "a", `{"instead":"`+at+`","saved":"soon"}`),
		missed("thing", "a", `{"instead":"`+at+`"}`),
	)), stream.ErrReject, stream.ErrReject, stream.ErrReject)
}

// Nobody waits for it, so while PostgreSQL is away it is not kept.
func TestRequestToMakeAnewIsNotKept(t *testing.T) {
	t.Parallel()
	pg := testserver.NewPostgres(t, nil)
	w := newWorld(t, pg, things)
	w.set("a", 1)
	w.fill("thing", "a")
	pg.Stop()
	w.ends(w.fills().Handle(w.ctx, messages(early(w.entry("thing", "a")))), nil)
	w.wants("thing", "a", `{"n":1}`)
	if err := pg.Start(w.ctx); err != nil { // so that its database can be dropped
		t.Fatal(err)
	}
}

// What nobody waits for takes no lease while there is no turn, and does not speak for
// those of its view who are patient.
func TestRequestToMakeAnewIsInNobodysWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.set("b", 1)
	w.fill("thing", "a")
	w.set("a", 2)
	batch := messages(early(w.entry("thing", "a")), missed("thing", "b", ""))
	release := w.hold("thing")
	w.store.Client().AddHook(&beforeScript{do: release}) // the first lease is the reader's
	w.ends(NewFills(w.store, w.filler, w.views, FillsOptions{Concurrency: 1}).Handle(w.ctx, batch), nil, nil)
	w.wants("thing", "a", `{"n":1}`)
	w.wants("thing", "b", `{"n":1}`)
}

// That it failed is no answer to who has missed since.
func TestFailureToMakeAnewIsNotAnnounced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.fill("thing", "a")
	heard := w.waiter("thing", "a")
	w.exec("ALTER TABLE things RENAME n TO m")
	w.ends(w.fills().Handle(w.ctx, messages(early(w.entry("thing", "a")))), nil)
	if n := w.loads(); n != 2 {
		t.Fatalf("%d loads", n)
	}
	w.exec("ALTER TABLE things RENAME m TO n")
	w.fill("thing", "a") // the lease was given back
	if f := <-heard; f.Outcome != cache.Accepted {
		t.Errorf("announced: %+v", f)
	}
}

func TestOldRequestToMakeAnewIsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.fill("thing", "a")
	old := early(w.entry("thing", "a"))
	old.Time = time.Now().Add(-earlyFor)
	w.ends(w.fills().Handle(w.ctx, messages(old)), nil)
	if n := w.loads(); n != 1 {
		t.Errorf("%d loads", n)
	}
}

// beforeScript does something, once, when a store is about to run a script.
type beforeScript struct {
	redis.Hook
	do func()
}

func (b *beforeScript) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (b *beforeScript) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (b *beforeScript) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if do := b.do; do != nil && cmds[0].Name() == "evalsha" {
			b.do = nil
			do()
		}
		return next(ctx, cmds)
	}
}

// Between a fill's look at the key and its lease another fill begins and ends: what
// it has put is not loaded again.
func TestFillThatAnotherHasOvertakenLoadsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	slower := w.newStore()
	filler, err := NewFiller(slower, w.loader, FillerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	slower.Client().AddHook(&beforeScript{do: func() {
		w.fill("thing", "a")
		testserver.Eventually(t, "the pause is over", func() error {
			found, err := w.store.Inspect(w.ctx, w.view("thing"), "a")
			if err == nil && !found.NotBefore.IsZero() {
				err = fmt.Errorf("not before %s", found.NotBefore)
			}
			return err
		})
	}})
	heard := w.waiter("thing", "a")
	if err := filler.Fill(w.ctx, w.view("thing"), "a", FillOptions{}); err != nil {
		t.Error(err)
	}
	for range 2 {
		if f := <-heard; f.Outcome != cache.Accepted {
			t.Errorf("announced: %+v", f)
		}
	}
	if n := w.loads(); n != 1 {
		t.Errorf("%d loads", n)
	}
}

// clocks is a view that tells when it was loaded, in milliseconds.
const clocks = `
views:
  clock: {key: [id], load: "SELECT json_build_object('ms', (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 'id', $1::text)"}
`

// However soon a key is asked for again, its loads are a pause apart.
func TestLoadsOfOneKeyAreAPauseApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, clocks)
	var last int64
	for n := range 12 {
		w.fill("clock", "a")
		var loaded struct{ MS int64 }
		if err := json.Unmarshal([]byte(w.body("clock", "a")), &loaded); err != nil {
			t.Fatal(err)
		}
		// The time at which an entry is saved is an estimate, in milliseconds.
		if gap := loaded.MS - last; gap < pauseLeast.Milliseconds()/2 {
			t.Errorf("load %d comes %d ms after the one before", n, gap)
		}
		last = loaded.MS
		if _, err := w.store.Invalidate(w.ctx, []cache.Change{{View: w.view("clock"), Key: "a"}}); err != nil {
			t.Fatal(err)
		}
	}
}

// So are those that fail.
func TestFailingLoadsOfOneKeyAreAPauseApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.exec("ALTER TABLE things RENAME n TO m")
	const loads = 30
	begun := time.Now()
	for range loads {
		if err := w.filler.Fill(w.ctx, w.view("thing"), "a", FillOptions{}); sqlState(err) != "42703" {
			t.Fatal(err)
		}
	}
	if took := time.Since(begun); took < (loads-1)*pauseLeast*9/10 || w.loads() != loads {
		t.Errorf("%d loads in %s", w.loads(), took)
	}
}

// A fill that waits for the end of a pause ends with its context.
func TestFillIsCutShortInAPause(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	lease, err := w.store.Lease(w.ctx, w.view("thing"), "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	at := w.now()
	s := cache.Fill{Version: at, Body: []byte("{}"), Pause: time.Hour, TTL: time.Hour}
	if _, err := w.store.Put(w.ctx, lease, s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.ctx, 50*time.Millisecond)
	defer cancel()
	err = w.filler.Fill(ctx, w.view("thing"), "a", FillOptions{MinXid: &cache.MinXid{Xid: 1 << 60}})
	if err == nil || ctx.Err() == nil {
		t.Errorf("filled: %v", err)
	}
}
