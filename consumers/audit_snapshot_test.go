package consumers

import (
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/version"
)

// ahead puts what SQL says under a snapshot that has seen so many transactions more than
// there have been.
func (w *world) ahead(key string, transactions uint64) {
	w.Helper()
	lease, err := w.store.Lease(w.ctx, w.view("thing"), key, time.Minute)
	if err != nil {
		w.Fatal(err)
	}
	loaded, err := w.loader.Load(w.ctx, w.view("thing"), key)
	if err != nil {
		w.Fatal(err)
	}
	at := loaded.Snapshot.Xmax + transactions
	s := version.Snapshot{Epoch: loaded.Snapshot.Epoch, Xmin: at, Xmax: at}
	if _, err := w.store.Put(w.ctx, lease, cache.Fill{Version: s.Version(), Snapshot: s, Body: loaded.Body, TTL: time.Hour}); err != nil {
		w.Fatal(err)
	}
}

// forgetsItsSnapshot takes the snapshot out of an entry as it stands in Redis. It lies
// behind its mark in the flags and before 12 bytes of ETag and the body.
func (w *world) forgetsItsSnapshot(key string) {
	w.Helper()
	in, err := w.store.Inspect(w.ctx, w.view("thing"), key)
	if err != nil {
		w.Fatal(err)
	}
	raw, err := w.store.Client().Get(w.ctx, in.Name).Bytes()
	if err != nil {
		w.Fatal(err)
	}
	snapshot, err := in.Entry.Snapshot.AppendBinary(nil)
	if err != nil {
		w.Fatal(err)
	}
	after := len(raw) - len(in.Entry.Body) - 12
	flags := after - len(snapshot) - 1
	raw[flags] &^= 1
	if err := w.store.Client().Set(w.ctx, in.Name, append(raw[:flags+1], raw[after:]...), time.Hour).Err(); err != nil {
		w.Fatal(err)
	}
}

// Every fill would have to give way to an entry that has seen more than there has been.
func TestAnEntryFromTheFutureIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.ahead("a", 1_000_000)
	sent := w.snapshot()
	x := w.examine(&sent, time.Hour)
	s := w.suspicionOf(x, "thing", "a")
	w.verdict(x, s, "", "while a relay may begin another epoch")
	x.settle = 0
	w.verdict(x, s, Wrong, "when none has")
	if audit := w.verify(VerifyOptions{Repair: true}); audit.Checked != 1 || audit.Wrong != 1 {
		t.Errorf("%+v", audit)
	}
	w.fill("thing", "a")
	w.wants("thing", "a", `{"n":1}`)

	// One that PostgreSQL has caught up with has seen no more than it.
	w.set("b", 1)
	w.ahead("b", 2)
	s = w.suspicionOf(x, "thing", "b")
	for range 4 {
		w.set("c", 1)
	}
	w.verdict(x, s, Behind, "when PostgreSQL has come so far")
}

// Entries of another epoch nobody can compare: the relay is about to fence them.
func TestOfAnotherEpochNothingIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	x, sent := w.unnoticed(0)
	s := w.suspicionOf(x, "thing", "a")
	w.exec("SELECT mythic_cache.begin_epoch(2)")
	*sent = w.snapshot()
	w.verdict(x, s, "", "after another epoch has begun")
	if seen, err := x.look(w.ctx, w.view("thing"), "a"); err != nil || seen.state != unsure {
		t.Errorf("a look finds state %d, %v", seen.state, err)
	}
	if audit := w.verify(VerifyOptions{}); audit.Checked != 1 || audit.Behind != 1 {
		t.Errorf("%+v", audit)
	}
}

// What an entry has seen without its snapshot nobody knows: readers that ask for a
// transaction cannot be answered by it, and whatever the outbox holds may be on its way.
func TestAnEntryWithoutASnapshotIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.fill("thing", "a")
	w.forgetsItsSnapshot("a")
	w.wants("thing", "a", `{"n":1}`)
	var sent version.Snapshot
	x := w.examine(&sent, 0)
	s := w.suspicionOf(x, "thing", "a")
	w.verdict(x, s, "", "without a position")
	sent = w.snapshot()
	w.exec("INSERT INTO mythic_cache.outbox (type, view, subject) VALUES ('things.changed', 'thing', 'a')")
	w.verdict(x, s, "", "while a change is in the outbox")
	sent = w.snapshot()
	w.verdict(x, s, Wrong, "when all is done")
}
