package producers

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
)

// turns moves a rotation by hand, with a position that has seen all.
type turns struct {
	*bed
	rotation rotation
	at       position
}

func newTurns(t *testing.T) *turns {
	t.Helper()
	b := newBed(t)
	return &turns{b, rotation{conn: b.connect(), retention: 80 * time.Millisecond, lockWait: truncateWait}, position{}}
}

// now moves the position up to the present.
func (r *turns) now() {
	r.t.Helper()
	seen, err := version.ParseSnapshot(1, one[string](r.bed, `SELECT pg_current_snapshot()::text`))
	if err != nil {
		r.t.Fatal(err)
	}
	r.at = position{epoch: 1, term: "t", seen: seen}
}

func (r *turns) turn() int {
	r.t.Helper()
	r.rotation.noted = time.Time{}
	n, err := r.rotation.turn(r.t.Context(), r.at, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func (r *turns) slot() int { return one[int](r.bed, `SELECT last_value FROM mythic_cache.outbox_slot`) }
func (r *turns) rows() int { return one[int](r.bed, `SELECT count(*) FROM mythic_cache.outbox`) }

// past waits until a retention has passed by PostgreSQL's clock.
func (r *turns) past() {
	r.exec(`SELECT pg_sleep(0.1)`) // there is no signal for time
}

func TestRotationTruncatesWhatIsPast(t *testing.T) {
	r := newTurns(t)
	r.exec(write)
	r.past()
	r.now()
	r.turn()
	if r.slot() != 1 || r.rows() != 1 {
		t.Fatalf("slot %d, %d rows", r.slot(), r.rows())
	}
	r.exec(write)
	r.past()
	r.now()
	if n := r.turn(); n != 1 || r.rows() != 1 || r.slot() != 2 {
		t.Fatalf("%d truncated, %d rows left, slot %d", n, r.rows(), r.slot())
	}
	if !r.at.seen.Sees(one[uint64](r.bed, `SELECT xid::text::bigint FROM mythic_cache.outbox_truncated`)) {
		t.Error("what was truncated was not past")
	}
	if dead := one[int](r.bed, `SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables WHERE relname LIKE 'outbox\__'`); dead != 0 {
		t.Errorf("%d dead tuples", dead)
	}
}

// A writer that chose its slot long ago puts its row there late: the row is seen
// after the lock, however it looked before.
func TestRotationKeepsALateRow(t *testing.T) {
	r := newTurns(t)
	late := r.connect()
	r.exec(write)
	r.past()
	r.now()
	r.turn()
	if r.slot() != 1 {
		t.Fatal("no rotation")
	}
	r.past()
	r.now()
	do(t, late, `BEGIN; INSERT INTO mythic_cache.outbox (type, subject, slot, event_id) VALUES ('run.started', 'late', 0, gen_random_uuid())`)
	started := time.Now()
	if n := r.turn(); n != 0 {
		t.Error("a partition was truncated under a writer")
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("the attempt took %s", took)
	}
	do(t, late, `COMMIT`)
	r.past()
	if n := r.turn(); n != 0 || r.rows() != 2 {
		t.Errorf("%d truncated, %d rows left: the position has not seen the late one", n, r.rows())
	}
	r.now()
	r.turn()
	r.past()
	if n := r.turn(); n != 1 || r.rows() != 0 {
		t.Errorf("%d truncated, %d rows left after the position has seen it for a retention", n, r.rows())
	}
}

// The race that a look before the lock alone would lose: the writer is in there
// when rotation looks, and commits while rotation waits for the lock.
func TestRotationLooksAfterItHasLocked(t *testing.T) {
	r := newTurns(t)
	r.rotation.lockWait = time.Minute
	late := r.connect()
	r.exec(write)
	r.past()
	r.now()
	r.turn()
	r.past()
	r.now()
	r.rotation.noted = time.Now() // no new note: the old one is past the first row
	do(t, late, `BEGIN; INSERT INTO mythic_cache.outbox (type, subject, slot, event_id) VALUES ('run.started', 'late', 0, gen_random_uuid())`)
	done := make(chan error)
	go func() { _, err := r.rotation.truncate(t.Context(), 0, r.at); done <- err }()
	testserver.Eventually(t, "rotation waits for the lock", func() error {
		if one[int](r.bed, `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'mythic_cache.outbox_0'::regclass`) == 0 {
			return errors.New("it does not")
		}
		return nil
	})
	do(t, late, `COMMIT`)
	if err := <-done; err != nil || r.rows() != 2 {
		t.Errorf("%d rows left, %v", r.rows(), err)
	}
}

// While rotation looks for the second time nobody can write to the partition. How
// much is in there must not matter, nor an old transaction that is still open.
func TestRotationLooksAtLittle(t *testing.T) {
	r := newTurns(t)
	open := r.connect()
	do(t, open, `BEGIN; SELECT pg_current_xact_id()`)
	for range 3 { // in transactions of their own, behind the open one
		r.exec(`SELECT count(mythic_cache.publish('run.started', 'r' || n)) FROM generate_series(1, 10000) n`)
	}
	r.now()
	r.exec(`INSERT INTO mythic_cache.positions (at, epoch, snapshot) VALUES (clock_timestamp() - interval '1 hour', 1, $1::text::pg_snapshot)`, r.at.seen.String())
	do(t, r.rotation.conn, `SET enable_seqscan = off; SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan`)
	var text string
	err := r.rotation.conn.QueryRow(t.Context(), `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+allSeen("mythic_cache.outbox_0"), int64(1), time.Minute, r.at.seen.String()).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	var plan []struct {
		Plan struct {
			Rows    float64 `json:"Actual Rows"`
			Buffers int     `json:"Shared Hit Blocks"`
			Read    int     `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal([]byte(text), &plan); err != nil {
		t.Fatal(err)
	}
	if p := plan[0].Plan; p.Rows != 1 || p.Buffers+p.Read > 60 {
		t.Errorf("a look at 30,000 rows took %d pages and said yes %v times", p.Buffers+p.Read, p.Rows)
	}
}

func TestRotationWaitsForThePosition(t *testing.T) {
	r := newTurns(t)
	r.now() // before the row
	r.exec(write)
	for range 6 {
		r.past()
		if n := r.turn(); n != 0 || r.rows() != 1 {
			t.Fatalf("%d truncated, %d rows left", n, r.rows())
		}
	}
	// Redis may have gone back behind what was noted.
	back := r.at
	r.now()
	r.turn()
	r.past()
	r.at = back
	if n := r.turn(); n != 0 || r.rows() != 1 {
		t.Fatalf("%d truncated, %d rows left, with a position that went back", n, r.rows())
	}
}

func TestAPositionOlderThanWhatIsGoneFencesEverything(t *testing.T) {
	b := newBed(t)
	_, stop := b.relay()
	b.exec(write)
	b.sync()
	stop()
	old := b.client.HGet(t.Context(), b.keys.Position(), "position").Val()
	b.exec(write)
	b.exec(`UPDATE mythic_cache.outbox_truncated SET xid = (SELECT xid FROM mythic_cache.outbox ORDER BY xid DESC LIMIT 1); TRUNCATE mythic_cache.outbox`)
	fences := len(b.fences.fenced())
	b.relay()
	b.sync()
	if n := len(b.fences.fenced()); n != fences+1 {
		t.Errorf("fenced %d times, from %s", n-fences, old)
	}
	// Once fenced, what is gone is nobody's business.
	_, stop = b.relay()
	b.sync()
	stop()
	if n := len(b.fences.fenced()); n != fences+1 {
		t.Errorf("fenced %d times", n-fences)
	}
	b.sync()
}
