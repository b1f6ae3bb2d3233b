package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// relayLedger compares what was committed with what is in the streams, from one
// balance to the next.
type relayLedger struct {
	client  *redis.Client
	keys    stream.Keys
	read    map[string]string // of each stream, the last entry that was balanced
	earlier map[[16]byte]bool // events that were
}

// relayRound is what a balance has to know of the time since the last one.
type relayRound struct {
	done      []*transaction    // none is unknown any more
	unknown   int               // how many were
	kept      map[[16]byte]bool // the events in the outbox
	keptXid   map[uint64]bool   // and the transactions of all its rows
	resends   int               // how often everything retained was to be sent again
	truncated bool              // rows of the outbox were thrown away in this epoch
	wiped     bool              // entries were taken out of the streams; what the outbox has no more cannot come again
}

// ledgerEntry is an entry as far as the ledger goes.
type ledgerEntry struct {
	stream, at string
	id         [16]byte // of an event
	event      event.Event
}

func newRelayLedger(client *redis.Client, keys stream.Keys) *relayLedger {
	return &relayLedger{client: client, keys: keys, read: map[string]string{}, earlier: map[[16]byte]bool{}}
}

// streams are the names of those that there are.
func (l *relayLedger) streams(ctx context.Context) ([]string, error) {
	names, err := l.client.Keys(ctx, l.keys.Topic("*")).Result()
	return slices.DeleteFunc(names, func(name string) bool { return name == l.keys.Position() }), err
}

// entries reads what came since the last balance.
func (l *relayLedger) entries(ctx context.Context) ([]ledgerEntry, error) {
	names, err := l.streams(ctx)
	if err != nil {
		return nil, err
	}
	var all []ledgerEntry
	for _, name := range names {
		for after := l.read[name]; ; {
			from := "-"
			if after != "" {
				from = "(" + after
			}
			found, err := l.client.XRangeN(ctx, name, from, "+", 2000).Result()
			if err != nil {
				return nil, err
			}
			for _, x := range found {
				e := ledgerEntry{stream: name, at: x.ID}
				if e.event, err = event.Parse(func(field string) string { s, _ := x.Values[field].(string); return s }); err != nil {
					return nil, fmt.Errorf("%s of %s: %w", x.ID, name, err)
				}
				if e.event.ID != "" {
					if _, err := hex.Decode(e.id[:], []byte(strings.ReplaceAll(e.event.ID, "-", ""))); err != nil {
						return nil, fmt.Errorf("%s of %s: %w", x.ID, name, err)
					}
				}
				all, after = append(all, e), x.ID
			}
			if len(found) == 0 {
				break
			}
		}
	}
	return all, nil
}

// close takes what was balanced as read, and trims it.
func (l *relayLedger) close(ctx context.Context, r *relayRound, entries []ledgerEntry) error {
	for _, e := range entries {
		l.read[e.stream] = e.at
	}
	for _, t := range r.done {
		if t.fate != committed {
			continue
		}
		for _, id := range t.events {
			l.earlier[id] = true
		}
	}
	for name, at := range l.read {
		if err := l.client.XTrimMinID(ctx, name, at).Err(); err != nil {
			return err
		}
	}
	return nil
}

// readRound settles what is unknown and reads the outbox. Nobody writes meanwhile.
func readRound(ctx context.Context, conn *pgx.Conn, done []*transaction) (*relayRound, error) {
	r := &relayRound{done: done, kept: map[[16]byte]bool{}, keptXid: map[uint64]bool{}}
	witnesses, err := column[int64](ctx, conn, `SELECT number FROM witness`)
	if err != nil {
		return nil, err
	}
	there := map[int64]bool{}
	for _, number := range witnesses {
		there[number] = true
	}
	for _, t := range done {
		if t.fate != unknown && there[t.number] != (t.fate == committed) {
			return nil, fmt.Errorf("transaction %d: its writer was told %d, and its witness is there: %t", t.number, t.fate, there[t.number])
		}
		if t.fate != unknown {
			continue
		}
		r.unknown++
		if t.fate = rolledBack; there[t.number] {
			t.fate = committed
		}
	}
	ids, err := column[[16]byte](ctx, conn, `SELECT event_id FROM mythic_cache.outbox WHERE event_id IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		r.kept[id] = true
	}
	xids, err := column[int64](ctx, conn, `SELECT DISTINCT xid::text::bigint FROM mythic_cache.outbox`)
	for _, xid := range xids {
		r.keptXid[uint64(xid)] = true
	}
	if err != nil {
		return nil, err
	}
	err = conn.QueryRow(ctx, `SELECT xid IS NOT NULL FROM mythic_cache.outbox_truncated`).Scan(&r.truncated)
	return r, err
}

func column[T any](ctx context.Context, conn *pgx.Conn, sql string) ([]T, error) {
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}

// wrongs are sentences of what does not balance, by kind.
type wrongs map[string][]string

func (w wrongs) addf(kind, format string, args ...any) {
	w[kind] = append(w[kind], fmt.Sprintf(format, args...))
}

func (w wrongs) String() string {
	var text strings.Builder
	for kind, all := range w {
		fmt.Fprintf(&text, "%d %s, such as %s\n", len(all), kind, strings.Join(all[:min(3, len(all))], "; "))
	}
	return text.String()
}

// What the ledger may find wrong.
const (
	wrongMissing = "events are in no stream"
	wrongTwice   = "events came too often"
	wrongForeign = "entries are of no committed row"
	wrongStream  = "entries are in a stream that is not theirs"
	wrongOutbox  = "rows of the outbox are of no transaction that committed"
	wrongUnseen  = "changes of a key have no entry after them"
)

// weigh returns what is wrong with the entries since the last balance.
func (l *relayLedger) weigh(r *relayRound, entries []ledgerEntry) wrongs {
	wrong := wrongs{}
	times := map[[16]byte]int{}
	newest := map[change]string{}
	for _, e := range entries {
		if strings.HasPrefix(e.event.Subject, never) {
			wrong.addf(wrongForeign, "%s %s", e.event.Type, e.event.Subject)
		}
		if e.stream != l.keys.Topic(e.event.Topic()) {
			wrong.addf(wrongStream, "%s in %s", e.event.Type, e.stream)
		}
		if e.event.ID != "" {
			times[e.id]++
			continue
		}
		c := change{e.event.View, e.event.Subject} // no subject: all keys of the view
		newest[c] = max(newest[c], e.event.Version)
	}
	mine := map[[16]byte]bool{}
	for _, t := range r.done {
		if t.fate == committed {
			l.weighTransaction(r, t, times, newest, wrong)
		}
		for _, id := range t.events {
			mine[id] = t.fate == committed
		}
	}
	for id, n := range times {
		switch {
		case mine[id]:
		case !l.earlier[id]:
			wrong.addf(wrongForeign, "event %x", id)
		case n > r.resends:
			wrong.addf(wrongTwice, "%x, of before the last balance, %d times", id, n)
		}
	}
	for id := range r.kept {
		switch {
		case mine[id]: // weighed above
		case !l.earlier[id]:
			wrong.addf(wrongOutbox, "event %x", id)
		case r.resends > 0 && times[id] == 0:
			wrong.addf(wrongMissing, "%x, of before the last balance, though all was to be sent again", id)
		}
	}
	return wrong
}

func (l *relayLedger) weighTransaction(r *relayRound, t *transaction, times map[[16]byte]int, newest map[change]string, wrong wrongs) {
	for _, id := range t.events {
		switch n := times[id]; {
		case n == 0 && (r.kept[id] || !r.wiped):
			wrong.addf(wrongMissing, "%x of transaction %d", id, t.number)
		case n > 1+r.resends:
			wrong.addf(wrongTwice, "%x of transaction %d, %d times", id, t.number, n)
		}
	}
	if r.wiped && !r.keptXid[t.xid] {
		return
	}
	for _, c := range t.changes {
		if !t.isSeenBy(newest[c]) && !t.isSeenBy(newest[change{c.view, ""}]) {
			wrong.addf(wrongUnseen, "%s %s by transaction %d (xid %d, before it %s; the newest entry %q)", c.view, c.key, t.number, t.xid, t.before, newest[c])
		}
	}
}

// isSeenBy reports whether a version, as text, may have seen the transaction: it is
// above what was before it, and in the same epoch its xmax is above the xid.
func (t *transaction) isSeenBy(text string) bool {
	const epoch, xmax = 12, 28 // where the digits of each end; see package version
	switch {
	case text <= t.before:
		return false
	case text[:epoch] != t.before[:epoch]:
		return true
	default:
		return text[epoch:xmax] > fmt.Sprintf("%016x", t.xid)
	}
}
