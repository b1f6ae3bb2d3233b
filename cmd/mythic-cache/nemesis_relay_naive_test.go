package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// The same load and the same ledger, and a relay as most are: it reads id > last.
// A row whose transaction commits after one with a higher id is lost to it.
func TestTheRelayLedgerFindsWhatIsLost(t *testing.T) {
	t.Parallel()
	s := newRelayBed(t, postgres)
	keys := stream.NewKeys("mythic:")
	ledger := newRelayLedger(s.client, keys)
	writers := startRelayWriters(t, s.database, 1, 5)
	last := int64(0)
	testserver.Eventually(t, "the ledger finds a row that id > last misses", func() error {
		for range 20 {
			if err := relayNaively(t.Context(), s.conn, s.client, keys, &last); err != nil {
				t.Fatal(err)
			}
		}
		writers.gate.Lock()
		defer writers.gate.Unlock()
		if err := relayNaively(t.Context(), s.conn, s.client, keys, &last); err != nil {
			t.Fatal(err)
		}
		done, err := writers.take()
		if err != nil {
			t.Fatal(err)
		}
		r, err := readRound(t.Context(), s.conn, done)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := ledger.entries(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wrong := ledger.weigh(r, entries)
		if len(wrong[wrongForeign])+len(wrong[wrongTwice])+len(wrong[wrongStream])+len(wrong[wrongOutbox]) > 0 {
			t.Fatalf("it is only late, and the ledger says: %s", wrong)
		}
		if len(wrong[wrongMissing]) > 0 && len(wrong[wrongUnseen]) > 0 {
			return nil
		}
		if err := ledger.close(t.Context(), r, entries); err != nil {
			t.Fatal(err)
		}
		s.exec(`TRUNCATE witness`)
		return errors.New("nothing was lost yet")
	})
}

// relayNaively sends what lies behind an id, to its end.
func relayNaively(ctx context.Context, conn *pgx.Conn, client *redis.Client, keys stream.Keys, last *int64) error {
	const query = `SELECT id, type, coalesce(view, ''), coalesce(subject, ''), coalesce(event_id::text, '') FROM mythic_cache.outbox WHERE id > $1 ORDER BY id LIMIT 1000`
	for {
		rows, err := conn.Query(ctx, query, *last)
		if err != nil {
			return err
		}
		events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e event.Event, err error) {
			return e, row.Scan(last, &e.Type, &e.View, &e.Subject, &e.ID)
		})
		if err != nil || len(events) == 0 {
			return err
		}
		_, err = client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, e := range events {
				if e.Version = strings.Repeat("f", 36); e.Subject != "" || e.View != "" {
					p.XAdd(ctx, &redis.XAddArgs{Stream: keys.Topic(e.Topic()), Values: e.Fields()})
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// Each kind of wrong is found in a round that else balances.
func TestTheRelayLedgerFindsEveryWrong(t *testing.T) {
	t.Parallel()
	id := func(n byte) [16]byte { return [16]byte{n} }
	version := func(epoch, xmax int) string { return fmt.Sprintf("%012x%016x%08x", epoch, xmax, 1<<32-1) }
	published := func(n byte) ledgerEntry {
		return ledgerEntry{stream: "mythic:{stream}:order", id: id(n), event: event.Event{ID: fmt.Sprint(n), Type: "order.placed", Subject: "s"}}
	}
	changed := func(key, at string) ledgerEntry {
		return ledgerEntry{stream: "mythic:{stream}:books", event: event.Event{Type: "books.changed", View: "user_books", Subject: key, Version: at}}
	}
	type books struct {
		ledger  *relayLedger
		round   *relayRound
		entries []ledgerEntry
	}
	// Events 1 and 2 are of a transaction with xid 100, that changed ann; event 3 was
	// rolled back; event 9 was balanced before.
	even := func() books {
		l := newRelayLedger(nil, stream.NewKeys("mythic:"))
		l.earlier[id(9)] = true
		return books{l, &relayRound{
			done: []*transaction{
				{number: 1, fate: committed, events: [][16]byte{id(1), id(2)}, changes: []change{{"user_books", "ann"}}, xid: 100, before: version(1, 100)},
				{number: 2, fate: rolledBack, events: [][16]byte{id(3)}, xid: 101},
			},
			kept: map[[16]byte]bool{id(1): true, id(2): true, id(9): true}, keptXid: map[uint64]bool{100: true},
		}, []ledgerEntry{published(1), published(2), changed("ann", version(1, 102))}}
	}
	for name, c := range map[string]struct {
		spoil func(b *books)
		wrong string // "" where all is well
	}{
		"even":                          {func(*books) {}, ""},
		"an event is missing":           {func(b *books) { b.entries = b.entries[1:] }, wrongMissing},
		"an event comes twice":          {func(b *books) { b.entries = append(b.entries, published(1)) }, wrongTwice},
		"twice, when all is sent again": {func(b *books) { b.round.resends = 1; b.entries = append(b.entries, published(1), published(9)) }, ""},
		"thrice, when all is sent again": {func(b *books) {
			b.round.resends = 1
			b.entries = append(b.entries, published(1), published(1), published(9))
		}, wrongTwice},
		"an old event comes again":       {func(b *books) { b.entries = append(b.entries, published(9)) }, wrongTwice},
		"an old event is not sent again": {func(b *books) { b.round.resends = 1 }, wrongMissing},
		"a rolled back event":            {func(b *books) { b.entries = append(b.entries, published(3)) }, wrongForeign},
		"an event nobody published":      {func(b *books) { b.entries = append(b.entries, published(7)) }, wrongForeign},
		"a rolled back change":           {func(b *books) { b.entries = append(b.entries, changed(never+"x", version(1, 102))) }, wrongForeign},
		"in another's stream":            {func(b *books) { b.entries[0].stream = "mythic:{stream}:note" }, wrongStream},
		"a rolled back row":              {func(b *books) { b.round.kept[id(3)] = true }, wrongOutbox},
		"a key without an entry":         {func(b *books) { b.entries = b.entries[:2] }, wrongUnseen},
		"only the whole view":            {func(b *books) { b.entries[2] = changed("", version(1, 102)) }, ""},
		"an entry of before the change":  {func(b *books) { b.entries[2] = changed("ann", version(1, 100)) }, wrongUnseen},
		"an entry that has not seen it": {func(b *books) {
			b.round.done[0].before = version(1, 90)
			b.entries[2] = changed("ann", version(1, 100))
		}, wrongUnseen},
		"an entry of a later epoch": {func(b *books) { b.entries[2] = changed("ann", version(2, 50)) }, ""},
		"wiped, and no longer kept": {func(b *books) {
			b.round.wiped, b.round.kept, b.round.keptXid, b.entries = true, nil, nil, nil
		}, ""},
		"wiped, and kept": {func(b *books) { b.round.wiped, b.entries = true, nil }, wrongMissing},
	} {
		t.Run(name, func(t *testing.T) {
			b := even()
			c.spoil(&b)
			wrong := b.ledger.weigh(b.round, b.entries)
			if c.wrong == "" && len(wrong) > 0 || c.wrong != "" && len(wrong[c.wrong]) == 0 {
				t.Errorf("%q is to be found, and what is found is: %s", c.wrong, wrong)
			}
		})
	}
}
