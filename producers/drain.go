package producers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/version"
	"mythiccache/producers/event"
)

//go:embed drain.sql
var drainSQL string

// Bounds of one batch and of one script. A script of 250 events holds Redis up
// for a millisecond or two.
const (
	batchRows   = 2000
	batchBytes  = 8 << 20
	scriptRows  = 250
	scriptBytes = 1 << 20
	remapKeys   = 10_000 // above it a view is fenced instead
)

// row is what the drain statement returns of one outbox row or of one key that a
// joined mapping gave.
type row struct {
	again   bool
	xid     uint64
	id      int64
	at      time.Time
	typ     string
	view    string
	subject string
	eventID string
	data    string
	joined  bool
}

// batch is one reading of the outbox.
type batch struct {
	snapshot version.Snapshot // of the statement
	rows     []row
	found    int  // of the outbox among them; the rest are keys of second runs
	more     bool // rows were left out
	cut      bool // since they are large: what was read and dropped is read again
}

// read takes up rows after a position. Where from is not where Redis stands, all
// that lies between is known to be empty.
func read(ctx context.Context, conn *pgx.Conn, from position, limit, keys int) (batch, error) {
	rows, err := conn.Query(ctx, drainSQL, append(from.bounds(), limit, keys)...)
	if err != nil {
		return batch{}, fmt.Errorf("read the outbox: %w", err)
	}
	defer rows.Close()
	var b batch
	size := 0
	for rows.Next() {
		r, waits, err := b.scan(rows, from.epoch)
		if err != nil {
			return batch{}, fmt.Errorf("read the outbox: %w", err)
		}
		if !waits {
			break
		}
		if !r.again {
			b.found++
		}
		if size > batchBytes && b.found > 1 { // one row always, or there would be no end
			b.more, b.cut = true, true
			break // Close reads the rest and drops it
		}
		size += len(r.data) + len(r.subject) + 256
		b.rows = append(b.rows, r)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return batch{}, fmt.Errorf("read the outbox: %w", err)
	}
	b.more = b.more || b.found >= limit
	return b, nil
}

// bounds are $1 to $6 of the drain statement.
func (p position) bounds() []any {
	// Behind every row of the transactions below xmax, or behind the last row sent.
	afterXid, afterID := p.seen.Xmax-1, int64(math.MaxInt64)
	var target *string
	below := uint64(math.MaxInt64)
	if p.part != nil {
		text := p.part.target.String()
		target, below = &text, p.part.target.Xmax
		if p.part.xid > afterXid {
			afterXid, afterID = p.part.xid, p.part.id
		}
	}
	var open []string
	var openAfter []int64
	for _, xid := range p.seen.Xip {
		after := int64(-1)
		if p.part != nil && xid <= p.part.xid {
			if xid < p.part.xid {
				continue // rows are sent in the order of their xid
			}
			after = p.part.id
		}
		open, openAfter = append(open, strconv.FormatUint(xid, 10)), append(openAfter, after)
	}
	return []any{open, openAfter, strconv.FormatUint(afterXid, 10), afterID, target, strconv.FormatUint(below, 10)}
}

// scan reads one row of the drain statement, and the snapshot that stands in all
// of them; waits is false for the row that comes when the outbox has nothing.
func (b *batch) scan(rows pgx.Rows, epoch uint64) (r row, waits bool, err error) {
	var snapshot, xid string
	var clean bool
	var again *bool
	var at *time.Time
	if err := rows.Scan(&snapshot, &clean, &again, &xid, &r.id, &at, &r.typ, &r.view, &r.subject, &r.eventID, &r.data, &r.joined); err != nil {
		return row{}, false, err
	}
	if b.rows == nil { // the same in all of them
		if b.snapshot, err = version.ParseSnapshot(epoch, snapshot); err != nil {
			return row{}, false, err
		}
	}
	if !clean {
		return row{}, false, errors.New("the reader has a transaction id of its own, which its snapshot leaves out")
	}
	if again == nil {
		return row{}, false, nil
	}
	r.again, r.at = *again, *at
	if !r.again {
		r.xid, err = strconv.ParseUint(xid, 10, 64)
	}
	return r, true, err
}

// event returns what a row says, with the version that it was seen at, and for a
// whole view why; ok is false for a row that only carries join columns.
func (r row) event(seenAt version.Version) (e event.Event, why string, ok bool) {
	e = event.Event{Type: r.typ, View: r.view, Subject: r.subject, Time: r.at.UTC()}
	switch {
	case r.eventID != "":
		e.ID, e.Source = r.eventID, "postgres"
		if r.data != "" {
			e.Data = []byte(r.data)
		}
		return e, "", true
	case r.subject == "" && r.data != "": // the whole view, and why
		e.Version = seenAt.String()
		return e, r.data, true
	case r.subject == "":
		return e, "", !r.joined && !r.again
	case len(r.subject) > event.MaxName || !utf8.ValidString(r.subject):
		e.Subject, e.Version = "", seenAt.String()
		return e, "a key is too long or not UTF-8", true
	}
	e.Version = seenAt.String()
	return e, "", true
}

// identity is what makes two table events of one drain the same.
type identity struct{ typ, view, subject, id string }

func identityOf(e event.Event) identity { return identity{e.Type, e.View, e.Subject, e.ID} }

// step is what one script does: events, and the position after them.
type step struct {
	events []event.Event
	size   int // about, in bytes
	to     position
}

// together is how many of the steps travel in one round trip.
func together(steps []step) int {
	n, size := 0, 0
	for n < len(steps) && (n == 0 || size+steps[n].size <= scriptBytes) {
		size += steps[n].size
		n++
	}
	return n
}

// steps cuts a batch into scripts. A key that comes twice travels once; a key of
// a joined mapping's second run only where no row of the batch has it anyway.
// Those go with the first row, before any position that has passed the rows that
// they come of.
func (b *batch) steps(from position, note func(e event.Event, why string)) []step {
	target := b.snapshot
	if from.part != nil {
		target = from.part.target
	}
	seenAt := target.Version()
	direct := map[identity]bool{}
	if b.found < len(b.rows) {
		for _, r := range b.rows {
			if e, _, ok := r.event(seenAt); ok && !r.again {
				direct[identityOf(e)] = true
			}
		}
	}
	var steps []step
	var pending []event.Event
	taken := make(map[identity]bool, len(b.rows))
	size := 0
	for i, r := range b.rows {
		if e, why, ok := r.event(seenAt); ok && !taken[identityOf(e)] && (!r.again || !direct[identityOf(e)]) {
			taken[identityOf(e)] = true
			note(e, why)
			pending = append(pending, e)
			size += len(e.Data) + 256
		}
		last := i == len(b.rows)-1
		if r.again || !last && len(pending) < scriptRows && size < scriptBytes {
			continue
		}
		to := position{epoch: from.epoch, term: from.term, seen: from.seen, part: &part{target: target, xid: r.xid, id: r.id}}
		if last && !b.more {
			to = position{epoch: from.epoch, term: from.term, seen: target}
		}
		steps = append(steps, step{events: pending, size: size, to: to})
		pending, size = nil, 0
	}
	return steps
}
