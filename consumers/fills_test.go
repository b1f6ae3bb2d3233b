package consumers

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

func missed(view, key, data string) event.Event {
	return event.Event{Type: event.FillRequested, View: view, Subject: key, Data: json.RawMessage(data), Time: time.Now()}
}

func (w *world) fills() *Fills { return NewFills(w.store, w.filler, w.views, FillsOptions{}) }

func TestFillsServeReadersWhoMissed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	heard := w.waiter("thing", "a")
	w.ends(w.fills().Handle(w.ctx, messages(missed("thing", "a", ""), missed("thing", "a", ""), missed("thing", "b", "{}"))), nil, nil, nil)
	if f := <-heard; f.Outcome != cache.Accepted || string(f.Entry.Body) != `{"n":1}` {
		t.Errorf("announced: %+v", f)
	}
	w.wants("thing", "a", `{"n":1}`)
	w.wants("thing", "b", "absent")
	if n := w.loads(); n != 2 {
		t.Errorf("%d loads for two keys", n)
	}
}

func TestFillsRejectWhatIsNoRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.ends(w.fills().Handle(w.ctx, messages(
		missed("thing", "a", `{"min_xid":"-1"}`),
		missed("thing", "a", `{"min_xid":"0"}`),
		missed("thing", "a", `{"min_xid":"5","epoch":"now"}`),
		missed("thing", "a", `[]`),
		missed("unknown", "a", ""),
		missed("answer", "a", ""),
		event.Event{Type: "fill.forgotten", View: "thing", Subject: "a"},
	)), stream.ErrReject, stream.ErrReject, stream.ErrReject, stream.ErrReject, stream.ErrReject, stream.ErrReject, stream.ErrReject)
}

func TestFillsLeaveAKeyToWhoeverIsAtIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	if _, err := w.store.Lease(w.ctx, w.view("thing"), "a", time.Minute); err != nil {
		t.Fatal(err)
	}
	w.ends(w.fills().Handle(w.ctx, messages(missed("thing", "a", ""))), nil)
	if n := w.loads(); n != 0 {
		t.Errorf("%d loads beside another's lease", n)
	}
}

// write begins a transaction that changes a thing, and returns its id.
func (w *world) write(id string, n int) (pgx.Tx, uint64) {
	w.Helper()
	tx, err := w.pool.Begin(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { tx.Rollback(w.ctx) })
	var xid uint64
	if err := tx.QueryRow(w.ctx, "UPDATE things SET n = $2 WHERE id = $1 RETURNING pg_current_xact_id()", id, n).Scan(&xid); err != nil {
		w.Fatal(err)
	}
	return tx, xid
}

// hold takes all turns of a view.
func (w *world) hold(name string) (release func()) {
	w.Helper()
	var gives []func()
	for range w.loader.turns.ofView {
		give, err := w.loader.turns.take(w.ctx, name, time.Minute)
		if err != nil {
			w.Fatal(err)
		}
		gives = append(gives, give)
	}
	return func() {
		for _, give := range gives {
			give()
		}
	}
}

func TestFillsOfABusyViewAreGivenUpAndOthersDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	heard := w.waiter("slow", "0")
	release := w.hold("slow")
	var batch []event.Event
	for n := range 160 {
		batch = append(batch, missed("slow", strconv.Itoa(n), ""))
	}
	batch = append(batch, missed("thing", "a", ""))
	begun := time.Now()
	w.ends(w.fills().Handle(w.ctx, messages(batch...)), make([]error, len(batch))...)
	// Waiting for turns eight at a time would take twenty times as long.
	if took := time.Since(begun); took > 10*firstPatience {
		t.Errorf("a busy view held its batch up for %s", took)
	}
	w.wants("thing", "a", `{"n":1}`)
	if f := <-heard; f.Outcome != cache.Failed || f.Reason != "busy" {
		t.Errorf("announced: %+v", f)
	}
	release()
	w.fill("slow", "0") // the lease was given back
}

func TestFillsJudgeTheTransactionThatWasAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	f := w.fills()
	w.set("a", 1)
	w.fill("thing", "a")
	tx, xid := w.write("a", 2)
	epoch := w.text("SELECT mythic_cache.current_epoch()::text")
	heard := w.waiter("thing", "a")
	for _, c := range []struct{ data, reason string }{
		{fmt.Sprintf(`{"min_xid":"%d"}`, xid), ReasonXidOpen},
		{fmt.Sprintf(`{"min_xid":"%d","epoch":%q}`, xid, epoch), ReasonXidOpen},
		{fmt.Sprintf(`{"min_xid":"%d","epoch":"1"}`, xid), ReasonXidUnknown},
		{fmt.Sprintf(`{"min_xid":"%d"}`, xid+1_000_000), ReasonXidUnknown},
	} {
		w.ends(f.Handle(w.ctx, messages(missed("thing", "a", c.data))), nil)
		got := <-heard
		if got.Outcome != cache.Failed || got.Reason != c.reason || got.MinXid == nil {
			t.Errorf("%s: announced %+v", c.data, got)
		}
	}
	if n := w.loads(); n != 1 {
		t.Errorf("%d loads, want the one before", n)
	}
	if err := tx.Commit(w.ctx); err != nil {
		t.Fatal(err)
	}
	// The entry is fresh and nobody has invalidated it, and yet it will not do.
	w.ends(f.Handle(w.ctx, messages(missed("thing", "a", fmt.Sprintf(`{"min_xid":"%d","epoch":%q}`, xid, epoch)))), nil)
	if got := <-heard; got.Outcome != cache.Accepted || string(got.Entry.Body) != `{"n":2}` || !got.Entry.Snapshot.Sees(xid) {
		t.Errorf("announced %+v", got)
	}
	w.ends(f.Handle(w.ctx, messages(missed("thing", "a", `{"min_xid":"3"}`))), nil)
	if got := <-heard; got.Outcome != cache.Accepted {
		t.Errorf("of a transaction long ago: announced %+v", got)
	}
	if n := w.loads(); n != 2 {
		t.Errorf("%d loads, want two", n)
	}
}

func TestRolledBackTransactionsAreOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	tx, xid := w.write("a", 2)
	if err := tx.Rollback(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.ends(w.fills().Handle(w.ctx, messages(missed("thing", "a", `{"min_xid":"`+strconv.FormatUint(xid, 10)+`"}`))), nil)
	w.wants("thing", "a", `{"n":1}`)
}

func TestRequestsAreKeptWhilePostgresIsAwayAndSomebodyMayWait(t *testing.T) {
	t.Parallel()
	pg := testserver.NewPostgres(t, nil)
	w := newWorld(t, pg, things)
	w.set("a", 1)
	heard := w.waiter("thing", "a")
	pg.Stop()
	old := missed("thing", "a", "")
	old.Time = old.Time.Add(-2 * nobodyWaits)
	w.ends(w.fills().Handle(w.ctx, messages(missed("thing", "a", ""))), stream.ErrPause)
	if f := <-heard; f.Outcome != cache.Failed || f.Reason != "postgres away" {
		t.Errorf("announced: %+v", f)
	}
	w.ends(w.fills().Handle(w.ctx, messages(missed("thing", "a", `{"min_xid":"5"}`))), stream.ErrPause)
	w.ends(w.fills().Handle(w.ctx, messages(old)), nil)
	if err := pg.Start(w.ctx); err != nil { // so that its database can be dropped
		t.Fatal(err)
	}
}

func TestFailedLoadIsAnnouncedAndItsRequestDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	heard := w.waiter("thing", "a")
	w.exec("ALTER TABLE things RENAME n TO m")
	w.ends(w.fills().Handle(w.ctx, messages(missed("thing", "a", ""))), nil)
	if f := <-heard; f.Outcome != cache.Failed || f.Reason != "failed" {
		t.Errorf("announced: %+v", f)
	}
	if errors.Is(loadFailure(ErrNoEpoch), stream.ErrReject) || !errors.Is(loadFailure(ErrNoEpoch), stream.ErrPause) {
		t.Error("a missing epoch is no pause")
	}
}
