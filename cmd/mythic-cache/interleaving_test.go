package main

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

// How many operations of the store TestInterleavings does, and what it draws the
// conditions by. When who meets whom is the machine's to say.
const (
	interleavingOperations = "OPS"
	interleavingSeed       = "SEED"
)

// interleavingRound is the most operations that pass in one weather.
const interleavingRound = 10_000

// Writers with long and short transactions, rollbacks and savepoints; events repeated,
// late and shuffled; loaders that take ages between lease, snapshot and put, whose
// leases run out, and that die anywhere; Redis flushed: no value is accepted,
// announced or served that lacks a transaction of which its key has been told.
func TestInterleavings(t *testing.T) {
	t.Parallel()
	operations, seed := int64(number(t, interleavingOperations, 9_000)), number(t, interleavingSeed, rand.Uint64()>>1)
	t.Logf("%s=%d", interleavingSeed, seed)
	b := newInterleavingBed(t)
	var total interleavingTally
	for total.operations.Load() < operations {
		weather := interleavingWeathers().Example(int(seed) + b.rounds)
		w := b.newWorld(weather)
		started := time.Now()
		if err := w.overStore(min(interleavingRound, operations/3)); err != nil {
			t.Fatalf("%s=%d, round %d, %+v: %v", interleavingSeed, seed, w.round, weather, err)
		}
		total.add(&w.tally)
		t.Logf("round %d: %d operations, %s, %+v", w.round, w.tally.operations.Load(), time.Since(started).Round(time.Millisecond), weather)
	}
	total.log(t)
	if total.hits.Load() == 0 || total.accepted.Load() == 0 || total.refused.Load() == 0 || total.heard.Load() == 0 || total.applied.Load() == 0 {
		t.Error("something never happened, so nothing was tried")
	}
}

// overStore is a round over this program's store, and the demand that it works.
func (w *interleavingWorld) overStore(operations int64) error {
	shelf, err := newStoreShelf(w)
	if err != nil {
		return err
	}
	defer shelf.store.Close()
	w.shelf = shelf
	ctx, cancel := context.WithCancel(w.Context())
	var listening sync.WaitGroup
	listening.Go(func() { _ = shelf.waiters.Run(ctx) })
	defer listening.Wait()
	defer cancel()
	testserver.Eventually(w, "subscribed", shelf.waiters.Ready)
	if err := w.run(operations); err != nil {
		return err
	}
	return w.settle()
}

// The same over SET and DEL is found out within the same number of operations: else the
// test above would say little.
func TestInterleavingsOverSetAndDel(t *testing.T) {
	t.Parallel()
	seed := number(t, interleavingSeed, rand.Uint64()>>1)
	b := newInterleavingBed(t)
	started := time.Now()
	for b.rounds < 10 {
		w := b.newWorld(interleavingWeathers().Example(int(seed) + b.rounds))
		client, err := w.dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		views, err := view.Parse("interleaving.yaml", interleavingViews(w.weather.TTL), nil)
		if err != nil {
			t.Fatal(err)
		}
		v, _ := views.Lookup("touched")
		w.shelf = &plainShelf{client: client, view: v, loader: b.loader, ttl: time.Minute, tally: &w.tally}
		err = w.run(interleavingRound)
		client.Close()
		if err == nil {
			continue
		}
		if !strings.Contains(err.Error(), "was served: it has not seen") {
			t.Fatal(err)
		}
		t.Logf("after %s and %d operations: %v", time.Since(started).Round(time.Millisecond), w.tally.operations.Load(), err)
		return
	}
	t.Errorf("%d rounds over plain SET and DEL (%s=%d) show nothing stale", b.rounds, interleavingSeed, seed)
}

func (all *interleavingTally) add(one *interleavingTally) {
	all.operations.Add(one.operations.Load())
	all.transactions.Add(one.transactions.Load())
	all.applied.Add(one.applied.Load())
	all.hits.Add(one.hits.Load())
	all.accepted.Add(one.accepted.Load())
	all.refused.Add(one.refused.Load())
	all.heard.Add(one.heard.Load())
	all.flushes.Add(one.flushes.Load())
}

func (all *interleavingTally) log(t *testing.T) {
	t.Helper()
	t.Logf("%d operations: %d transactions, %d events applied, %d values served; of the slow fills %d were accepted and %d refused; %d announcements answered; %d flushes",
		all.operations.Load(), all.transactions.Load(), all.applied.Load(), all.hits.Load(), all.accepted.Load(), all.refused.Load(), all.heard.Load(), all.flushes.Load())
}
