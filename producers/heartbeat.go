package producers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// errEpoch says that the database has another epoch than the position.
var errEpoch = errors.New("the epoch has changed")

// backlogMost bounds what counting the backlog may cost.
const backlogMost = 100_000

// heartbeat keeps the leader's session, and finds out without any traffic that
// Redis lost something, the database began another epoch, or a table became another
// than the triggers were made for. behind is set in the middle of a backlog.
func (l *lead) heartbeat(ctx context.Context, behind bool) error {
	l.beat = time.Now()
	shapes, now, err := l.present(ctx)
	if err != nil {
		return err
	}
	l.heard = time.Now()
	if now.epoch != l.placed.epoch {
		return fmt.Errorf("%w from %d to %d", errEpoch, l.placed.epoch, now.epoch)
	}
	// Before the run of Redis is confirmed: it may have lost fences too.
	seen, err := l.guard(ctx, shapes, now.snapshot.Version())
	if err != nil {
		return err
	}
	if behind {
		seen = fencings{}
	}
	text, lost, err := l.streams.Look(ctx, l.placed.String(), seen)
	switch {
	case err != nil:
		return err
	case text != l.placed.String():
		return fmt.Errorf("%w: %q", errMoved, text)
	case lost != "":
		return fmt.Errorf("%w: %s", errLost, lost)
	}
	if time.Since(l.ensured) >= fallbackPoll {
		l.ensured = time.Now()
		if err := l.relay.o.Fences.EnsureViews(ctx, now.snapshot.Version()); err != nil {
			return fmt.Errorf("make absent view keys: %w", err)
		}
	}
	if behind {
		return l.count(ctx)
	}
	if err := l.weigh(ctx); err != nil {
		return err
	}
	l.confirmed = true
	// What was read and found empty: noted so that a new leader has less to read,
	// and so that partitions can go though nothing is written.
	if l.from.part == nil && l.from.String() != l.placed.String() {
		if err := l.streams.Place(ctx, l.placed.String(), l.from, false); err != nil {
			return err
		}
		l.placed = l.from
		l.relay.set(func(s *RelayState) { s.Position = l.placed.String() })
	}
	if l.placed.part != nil {
		return nil
	}
	truncated, err := l.rotation.turn(ctx, l.placed, time.Now())
	if truncated > 0 {
		l.relay.metrics.truncations.Add(float64(truncated))
		l.relay.o.Log.Info().Int("partitions", truncated).Msg("relay truncated what is past its retention")
	}
	return err
}

// present reads the shapes of views and, after them, the state of the database, in
// one round trip.
func (l *lead) present(ctx context.Context) (shapes map[string]shape, now present, err error) {
	both := &pgx.Batch{}
	both.Queue(shapeSQL, l.relay.watch.args()...)
	both.Queue(epochSQL)
	replies := l.conn.SendBatch(ctx, both)
	defer func() { err = errors.Join(err, replies.Close()) }()
	if shapes, err = scanShapes(replies.Query()); err != nil {
		return nil, now, err
	}
	now, err = scanPresent(replies.QueryRow())
	return shapes, now, err
}

// count notes how many rows wait: those of transactions that were in progress at
// the position, and those behind it.
func (l *lead) count(ctx context.Context) error {
	const query = `SELECT count(*) FROM (
		(SELECT FROM mythic_cache.outbox WHERE xid = ANY($1::text[]::xid8[]) LIMIT $4)
		UNION ALL
		(SELECT FROM mythic_cache.outbox WHERE (xid, id) > ($2::text::xid8, $3::bigint) LIMIT $4)) AS waiting`
	bounds := l.from.bounds()
	open, afterXid, afterID := bounds[0], bounds[2], bounds[3]
	var n int64
	if err := l.conn.QueryRow(ctx, query, open, afterXid, afterID, backlogMost).Scan(&n); err != nil {
		return fmt.Errorf("count the backlog: %w", err)
	}
	l.heard = time.Now()
	l.forgetRings(ctx)
	l.relay.metrics.backlog.Set(float64(n))
	l.relay.set(func(s *RelayState) { s.Backlog = n })
	return l.weigh(ctx)
}

// keep has PostgreSQL hear from the session where it has not for a while.
func (l *lead) keep(ctx context.Context) error {
	if time.Since(l.heard) < heartbeatEvery/2 {
		return nil
	}
	l.ahead.wait()
	l.heard = time.Now()
	if _, err := l.conn.Exec(ctx, "SELECT 1"); err != nil {
		return fmt.Errorf("keep the session: %w", err)
	}
	return nil
}

// forgetRings empties what the driver keeps of rings. All that they say is to look,
// and whoever counts what waits looks next; while Redis is away, each commit rings.
func (l *lead) forgetRings(ctx context.Context) {
	kept, cancel := context.WithCancel(ctx)
	cancel()
	for {
		if _, err := l.conn.WaitForNotification(kept); err != nil {
			return
		}
	}
}
