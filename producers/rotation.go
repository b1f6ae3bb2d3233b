package producers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// slots is how many partitions the outbox has.
const slots = 4

// rotation keeps the outbox bounded without deleting from it: writers go on to
// the next partition every half retention, and a partition is truncated once the
// relay has been past all of it for one whole retention.
type rotation struct {
	conn      *pgx.Conn
	retention time.Duration
	lockWait  time.Duration // how long a writer may be made to queue behind us
	noted     time.Time     // when the position was last noted
}

// turn notes the position and does what is due. The position must be complete,
// and confirmed in Redis just before.
func (r *rotation) turn(ctx context.Context, at position, now time.Time) (truncated int, err error) {
	if now.Sub(r.noted) < r.retention/16 {
		return 0, nil
	}
	const note = `WITH old AS (DELETE FROM mythic_cache.positions WHERE epoch <> $1 OR at < clock_timestamp() - 3 * $3::interval)
		INSERT INTO mythic_cache.positions (epoch, snapshot) VALUES ($1, $2::text::pg_snapshot)`
	if _, err := r.conn.Exec(ctx, note, int64(at.epoch), at.seen.String(), r.retention); err != nil {
		return 0, fmt.Errorf("note the position: %w", err)
	}
	r.noted = now
	var slot int
	var due bool
	const current = `SELECT s.last_value, t.opened < clock_timestamp() - $1::interval / 2 FROM mythic_cache.outbox_slot s, mythic_cache.outbox_truncated t`
	if err := r.conn.QueryRow(ctx, current, r.retention).Scan(&slot, &due); err != nil {
		return 0, fmt.Errorf("read the outbox's slot: %w", err)
	}
	for other := range slots {
		if other == slot {
			continue
		}
		done, err := r.truncate(ctx, other, at)
		if err != nil {
			return truncated, err
		}
		if done {
			truncated++
		}
	}
	if !due {
		return truncated, nil
	}
	return truncated, r.advance(ctx, slot)
}

// advance has writers go on to the next partition, where that is empty and the
// present one is not.
func (r *rotation) advance(ctx context.Context, slot int) error {
	next := (slot + 1) % slots
	var free bool
	query := fmt.Sprintf("SELECT EXISTS (SELECT FROM mythic_cache.outbox_%d) AND NOT EXISTS (SELECT FROM mythic_cache.outbox_%d)", slot, next)
	if err := r.conn.QueryRow(ctx, query).Scan(&free); err != nil {
		return fmt.Errorf("look at the next slot: %w", err)
	}
	if !free {
		return nil
	}
	err := pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE mythic_cache.outbox_truncated SET opened = clock_timestamp()"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT setval('mythic_cache.outbox_slot', $1)", next)
		return err
	})
	if err != nil {
		return fmt.Errorf("go on to slot %d: %w", next, err)
	}
	return nil
}

// allSeen asks for a partition's highest xid, and has no answer where the partition
// is empty or holds a row that one of two positions has not seen: the one noted one
// retention ago at least, and the present one. It looks for what is new to them as
// the relay does, so that it costs nothing how much is old, or how long another
// transaction has been open: in the second look, nobody can write there.
// $1 epoch, $2 retention, $3 the present position.
func allSeen(table string) string {
	return fmt.Sprintf(`SELECT (SELECT o.xid::text FROM %[1]s o ORDER BY o.xid DESC LIMIT 1) FROM (
			SELECT p.snapshot FROM mythic_cache.positions p
			WHERE p.epoch = $1 AND p.at <= clock_timestamp() - $2::interval ORDER BY p.at DESC LIMIT 1
		) AS old
		WHERE EXISTS (SELECT FROM %[1]s)
			AND NOT EXISTS (SELECT FROM %[1]s o WHERE o.xid >= pg_snapshot_xmax(old.snapshot))
			AND NOT EXISTS (SELECT FROM %[1]s o WHERE o.xid = ANY (ARRAY(SELECT pg_snapshot_xip(old.snapshot))))
			AND NOT EXISTS (SELECT FROM %[1]s o WHERE o.xid >= pg_snapshot_xmax($3::text::pg_snapshot))
			AND NOT EXISTS (SELECT FROM %[1]s o WHERE o.xid = ANY (ARRAY(SELECT pg_snapshot_xip($3::text::pg_snapshot))))`, table)
}

// truncate empties a partition all of whose rows the relay had sent one retention
// ago and has sent now (Redis may have lost its tail in between). It looks after
// it has locked: a row that a slow writer put there after a look would be lost.
func (r *rotation) truncate(ctx context.Context, slot int, at position) (done bool, err error) {
	table := fmt.Sprintf("mythic_cache.outbox_%d", slot)
	look := allSeen(table)
	args := []any{int64(at.epoch), r.retention, at.seen.String()}
	var highest string
	err = r.conn.QueryRow(ctx, look, args...).Scan(&highest)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", table, err)
	}
	err = pgx.BeginTxFunc(ctx, r.conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		lock := fmt.Sprintf("SET LOCAL lock_timeout = %d; LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE", r.lockWait.Milliseconds(), table)
		if _, err := tx.Exec(ctx, lock); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, look, args...).Scan(&highest); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE mythic_cache.outbox_truncated SET xid = greatest(xid, $1::text::xid8), at = clock_timestamp()", highest); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "TRUNCATE "+table)
		return err
	})
	var pg *pgconn.PgError
	switch {
	case errors.Is(err, pgx.ErrNoRows), errors.As(err, &pg) && pg.Code == "55P03": // a writer was in there: another time
		return false, nil
	case err != nil:
		return false, fmt.Errorf("truncate %s: %w", table, err)
	}
	return true, nil
}
