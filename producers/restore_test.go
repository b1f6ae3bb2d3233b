package producers

import (
	"errors"
	"fmt"
	"testing"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
)

// A dump that is restored into another cluster brings rows whose xids that cluster
// has yet to hand out, and what was truncated there:
//
//  1. the outbox holds a row of xid 2^40; the cluster is at some thousands;
//  2. the relay begins an epoch, and sends what is retained;
//  3. its snapshot does not see 2^40, so at the next reading the row is new again,
//     and so on for ever; and its position is always older than what is gone.
func TestARestoredOutboxIsSentOnce(t *testing.T) {
	b := newBed(t)
	b.exec(`INSERT INTO mythic_cache.outbox (xid, type, subject, event_id) VALUES ((1::bigint << 40)::text::xid8, 'run.started', 'restored', gen_random_uuid())`)
	b.exec(`UPDATE mythic_cache.outbox_truncated SET xid = ((1::bigint << 40) - 1)::text::xid8`)
	_, stop := b.relay()
	for range 5 { // each is a reading at least
		b.sync()
	}
	stop()
	b.relay()
	b.balanced()
	if n := len(b.fences.fenced()); n != 1 {
		t.Errorf("fenced %d times", n)
	}
}

// A dump that is restored into its own database holds the epoch's row too, and
// neither database nor cluster nor timeline is another. What the tables say now is
// older than what was cached, under the same epoch:
//
//  1. the dump is made in epoch E;
//  2. a change commits, and an entry is filled at E;
//  3. the restore takes the change back, with no trigger fired;
//  4. the entry would stay until its TTL.
func TestARestoredEpochIsNone(t *testing.T) {
	b := newBed(t)
	b.relay()
	b.sync()
	before := one[int64](b, `SELECT mythic_cache.current_epoch()`)
	b.exec(`BEGIN;
		CREATE TEMPORARY TABLE dump AS SELECT * FROM mythic_cache.epoch;
		ALTER TABLE mythic_cache.epoch RENAME TO gone;
		CREATE UNLOGGED TABLE mythic_cache.epoch (LIKE mythic_cache.gone INCLUDING ALL);
		DROP TABLE mythic_cache.gone;
		INSERT INTO mythic_cache.epoch SELECT * FROM dump;
		COMMIT`)
	if one[bool](b, `SELECT coalesce(mythic_cache.current_epoch() = $1, false)`, before) {
		t.Error("values may be cached under the epoch of the dump")
	}
	testserver.Eventually(t, "every view is fenced in a new epoch", func() error {
		if all := b.fences.fenced(); int64(all[len(all)-1].Epoch()) <= before {
			return errors.New("not yet")
		}
		return nil
	})
}

// An event whose topic is the name of the relay's position or of the dead letters
// would stop the relay for good, or lie among the dead.
func TestNoEventTravelsInAKeyOfOurOwn(t *testing.T) {
	b := newBed(t)
	for _, kind := range []string{"position.moved", "dead.letter", "parked.car"} {
		if err := (event.Event{Type: kind, Subject: "s"}).Validate(); err == nil {
			t.Errorf("%s is fit to travel", kind)
		}
		if _, err := b.conn.Exec(t.Context(), `SELECT mythic_cache.publish($1, 's')`, kind); err == nil {
			t.Errorf("%s was published", kind)
		}
	}
}

// A failover left the old primary running, and a relay beside it:
//
//  1. it leads under epoch E1;
//  2. the other relay begins E2 on the new primary and takes the position;
//  3. the first finds its epoch below Redis's. Were it to begin E3, the old
//     primary's values would pass for the newest, and the second would begin E4.
func TestARelayOfAnOldPrimaryStops(t *testing.T) {
	b := newBed(t)
	r, _ := b.relay()
	b.sync()
	epoch := one[int64](b, `SELECT mythic_cache.current_epoch()`)
	other := fromStart(uint64(epoch)+1, "other").String()
	if err := b.client.HSet(t.Context(), b.keys.Position(), "position", other).Err(); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "the relay stops", func() error {
		if err := r.Ready(); !errors.Is(err, errSuperseded) {
			return fmt.Errorf("ready: %w", err)
		}
		return nil
	})
	if now := one[int64](b, `SELECT mythic_cache.current_epoch()`); now != epoch {
		t.Errorf("epoch %d became %d", epoch, now)
	}
	if at := b.client.HGet(t.Context(), b.keys.Position(), "position").Val(); at != other {
		t.Errorf("the other's position became %s", at)
	}
	if _, err := BumpEpoch(t.Context(), b.conn, b.client, b.keys); err != nil {
		t.Fatal(err)
	}
	b.sync()
}

// A leader that is stopped between two statements of a transaction, as rotation's,
// must not keep the lead either.
func TestAStoppedLeaderLosesItsSessionInATransaction(t *testing.T) {
	b := newBed(t)
	conn := b.connect()
	if err := setUp(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_lock(1); BEGIN; SELECT 1`); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "another gets the lock", func() error {
		if !one[bool](b, `SELECT pg_try_advisory_lock(1)`) {
			return errors.New("not yet")
		}
		return nil
	})
}
