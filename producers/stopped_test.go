package producers

import (
	"errors"
	"testing"

	"mythiccache/internal/testserver"
)

// A leader that is stopped while it reads leaves its backend waiting for room to
// write in, and such a session is not idle:
//
//  1. a batch is larger than what the system keeps for a socket;
//  2. the leader is stopped, and does not read;
//  3. the backend waits, and would keep the lead until the leader goes on.
func TestAStoppedLeaderLosesItsSessionInTheMiddleOfAReply(t *testing.T) {
	b := newBed(t)
	conn := b.connect()
	if err := setUp(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_lock(1)`); err != nil {
		t.Fatal(err)
	}
	reply := conn.PgConn().Exec(t.Context(), `SELECT repeat('x', 1 << 20) FROM generate_series(1, 200)`) // and nobody reads it
	testserver.Eventually(t, "another gets the lock", func() error {
		if !one[bool](b, `SELECT pg_try_advisory_lock(1)`) {
			return errors.New("not yet")
		}
		return nil
	})
	if err := reply.Close(); err == nil {
		t.Error("the reply came to its end")
	}
}
