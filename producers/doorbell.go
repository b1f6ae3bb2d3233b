package producers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/version"
)

// doorbell decides how the relay learns of new rows. Writers NOTIFY, which is
// cheap while they are few and takes a database-wide lock at commit while they
// are many. So from a certain rate on the relay looks by itself, and says so in
// awake_until; a writer that reads this after its outbox row went in does not
// ring. Going back to listening without missing one of those:
//
//  1. The relay sets awake_until to 0. Sequences have no snapshots: whoever reads
//     it from now on rings.
//  2. It takes an xid N of its own, committed at once. A writer that did not ring
//     had its xid before it read awake_until, hence before 1: it is below N.
//  3. It goes on looking until a reading's own snapshot has its xmin above N. By
//     then every writer that did not ring is over, and that reading saw it.
//
// Each is one statement after one reading, so that a test can step through them.
// Where transactions can be prepared nobody rings and the relay looks every 50 ms.
type doorbell struct {
	conn     *pgx.Conn
	prepared bool // max_prepared_transactions > 0: nobody rings
	state    doorState
	renewed  time.Time // when awake_until was last set, by our clock
	barrier  uint64    // N
	backoff  time.Duration
	pace     time.Duration // between readings while awake
	window   [10]int       // rows found in each of the last tenths of rateWindow
	slot     int64
}

type doorState int

const (
	listening doorState = iota // until a ring or the fallback poll; every writer rings
	awake                      // writers may not ring
	armed                      // 1 is done
	closing                    // 2 is done
)

const (
	awakeLease  = 100 * time.Millisecond
	awakePoll   = time.Millisecond
	awakeMost   = 10 * time.Millisecond
	pacePerRow  = 10 * time.Microsecond // of the last rateWindow: 1 ms between readings at 1,000 rows a second, 10 at 10,000
	rateWindow  = 100 * time.Millisecond
	awakeFrom   = 40 // rows in a rateWindow from which on the relay looks by itself
	closingMost = 20 * time.Millisecond
	preparedGap = 50 * time.Millisecond
)

// openDoorbell begins awake, since a leader before us may have kept writers from
// ringing.
func openDoorbell(ctx context.Context, conn *pgx.Conn) (*doorbell, error) {
	d := &doorbell{conn: conn, state: awake}
	if err := conn.QueryRow(ctx, "SELECT current_setting('max_prepared_transactions') <> '0'").Scan(&d.prepared); err != nil {
		return nil, fmt.Errorf("open the doorbell: %w", err)
	}
	if _, err := conn.Exec(ctx, "LISTEN mythic_cache"); err != nil {
		return nil, fmt.Errorf("open the doorbell: %w", err)
	}
	return d, nil
}

// saw notes what a complete reading found, and moves from state to state.
func (d *doorbell) saw(ctx context.Context, rows int, snapshot version.Snapshot) error {
	rate := d.rate(time.Now(), rows)
	busy := rate >= awakeFrom
	d.pace = min(max(time.Duration(rate)*pacePerRow, awakePoll), awakeMost)
	switch {
	case d.prepared:
		return nil
	case busy && (d.state != awake || time.Since(d.renewed) > awakeLease/2):
		return d.stayAwake(ctx)
	case !busy && d.state == awake:
		return d.arm(ctx)
	case d.state == armed:
		return d.takeBarrier(ctx)
	case d.state == closing && snapshot.Xmin > d.barrier:
		d.state = listening
	}
	return nil
}

func (d *doorbell) stayAwake(ctx context.Context) error {
	d.state, d.renewed = awake, time.Now()
	const stay = `SELECT setval('mythic_cache.awake_until', (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $1)`
	if _, err := d.conn.Exec(ctx, stay, awakeLease.Milliseconds()); err != nil {
		return fmt.Errorf("stay awake: %w", err)
	}
	return nil
}

// arm takes step 1.
func (d *doorbell) arm(ctx context.Context) error {
	if _, err := d.conn.Exec(ctx, "SELECT setval('mythic_cache.awake_until', 0)"); err != nil {
		return fmt.Errorf("let writers ring: %w", err)
	}
	d.state = armed
	return nil
}

// takeBarrier takes step 2.
func (d *doorbell) takeBarrier(ctx context.Context) error {
	var xid string
	if err := d.conn.QueryRow(ctx, "SELECT pg_current_xact_id()::text").Scan(&xid); err != nil {
		return fmt.Errorf("let writers ring: %w", err)
	}
	var err error
	if d.barrier, err = strconv.ParseUint(xid, 10, 64); err != nil {
		return fmt.Errorf("let writers ring: %w", err)
	}
	d.state, d.backoff = closing, awakePoll
	return nil
}

// wait returns true when it is time to look, false when until has come first.
func (d *doorbell) wait(ctx context.Context, until time.Duration) (bool, error) {
	gap := until
	switch {
	case d.prepared:
		gap = preparedGap
	case d.state == awake, d.state == armed:
		gap = d.pace
	case d.state == closing:
		gap = d.backoff
		d.backoff = min(2*d.backoff, closingMost)
	}
	looking := gap < until
	waiting, cancel := context.WithTimeout(ctx, min(gap, until))
	defer cancel()
	_, err := d.conn.WaitForNotification(waiting)
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(waiting.Err(), context.DeadlineExceeded) && !d.conn.IsClosed():
		return looking, nil
	default:
		return false, fmt.Errorf("wait for the doorbell: %w", err)
	}
}

// rate is how many rows were found in the last rateWindow.
func (d *doorbell) rate(now time.Time, rows int) int {
	tenth := int64(rateWindow) / int64(len(d.window))
	slot := now.UnixNano() / tenth
	for passed := min(slot-d.slot, int64(len(d.window))); passed > 0; passed-- {
		d.window[(slot-passed+1)%int64(len(d.window))] = 0
	}
	d.slot = slot
	d.window[slot%int64(len(d.window))] += rows
	sum := 0
	for _, n := range d.window {
		sum += n
	}
	return sum
}
