package producers

import (
	"errors"
	"fmt"
	"testing"

	"mythiccache/internal/testserver"
)

// asleep waits until the relay listens: awake it asks PostgreSQL every millisecond.
func (b *bed) asleep() {
	b.t.Helper()
	testserver.Eventually(b.t, "the relay is asleep", func() error {
		if !one[bool](b, `SELECT clock_timestamp() - state_change > interval '200 ms' FROM pg_stat_activity WHERE application_name = '`+applicationName+`' AND datname = current_database()`) {
			return errors.New("it asked a moment ago")
		}
		return nil
	})
}

// A Redis that lost its last writes may bring back a position in the middle of a
// batch, whose target is older than what was sent since. The relay goes on to the
// present at once, and says that nothing waits when that is so.
func TestAPositionInTheMiddleLeadsToThePresent(t *testing.T) {
	b := newBed(t)
	b.relay()
	b.sync()
	key := b.keys.Position()
	before := b.client.HGet(t.Context(), key, "position").Val()
	b.exec(`SELECT mythic_cache.publish('run.started', 'r' || n) FROM generate_series(1, 20) n`)
	target := one[string](b, `SELECT pg_current_snapshot()::text`)
	middle := one[string](b, `SELECT xid::text || ' ' || id FROM mythic_cache.outbox WHERE type = 'run.started' ORDER BY id OFFSET 10 LIMIT 1`)
	b.exec(`SELECT mythic_cache.publish('run.finished', 'late')`)
	b.sync()
	b.asleep()
	b.client.HDel(t.Context(), key, PositionRunID)
	b.client.HSet(t.Context(), key, "position", before+" "+target+" "+middle)
	testserver.Eventually(t, "what was lost is sent again", func() error {
		confirmed := b.client.HExists(t.Context(), key, PositionRunID).Val()
		times := 0
		for _, e := range b.entries() {
			if e.Subject == "late" {
				times++
			}
		}
		if times == 2 {
			return nil
		}
		if confirmed {
			t.Fatal("the relay says that all was sent, and one row was not")
		}
		return fmt.Errorf("it was sent %d times", times)
	})
}
