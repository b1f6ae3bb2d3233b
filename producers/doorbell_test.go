package producers

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// stepped is a relay's side of the doorbell, moved by hand.
type stepped struct {
	*bed
	door *doorbell
	conn *pgx.Conn
	from position
}

func newStepped(t *testing.T) *stepped {
	t.Helper()
	b := newBed(t)
	conn := b.connect()
	door, err := openDoorbell(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := beginEpoch(t.Context(), conn, 0); err != nil {
		t.Fatal(err)
	}
	return &stepped{b, door, conn, fromStart(1, "t")}
}

// look reads, tells the doorbell, and returns how many rows were new.
func (s *stepped) look() int {
	s.t.Helper()
	found, err := read(s.t.Context(), s.conn, s.from, batchRows, remapKeys)
	if err != nil {
		s.t.Fatal(err)
	}
	s.from.seen = found.snapshot
	if err := s.door.saw(s.t.Context(), len(found.rows), found.snapshot); err != nil {
		s.t.Fatal(err)
	}
	return len(found.rows)
}

func (s *stepped) is(want doorState) {
	s.t.Helper()
	if s.door.state != want {
		s.t.Fatalf("the doorbell is in state %d, not %d", s.door.state, want)
	}
}

// listens looks until the relay may wait for a ring, and returns how many rows
// were new. Transactions of other tests, which share the server, hold it up.
func (s *stepped) listens() (found int) {
	s.t.Helper()
	testserver.Eventually(s.t, "the relay may listen", func() error {
		found += s.look()
		if s.door.state != listening {
			return fmt.Errorf("the doorbell is in state %d", s.door.state)
		}
		return nil
	})
	return found
}

// rings reports whether a writer rang.
func (s *stepped) rings() bool {
	s.t.Helper()
	state := s.door.state
	s.door.state = listening // wait for a ring alone
	defer func() { s.door.state = state }()
	rang, err := s.door.wait(s.t.Context(), 300*time.Millisecond)
	if err != nil {
		s.t.Fatal(err)
	}
	return rang
}

// stayAwake is what many rows do. It returns how many were new.
func (s *stepped) stayAwake() (found int) {
	s.t.Helper()
	s.door.rate(time.Now(), awakeFrom)
	found = s.look()
	s.is(awake)
	// However slow this machine is: the lease lasts until the test ends it.
	if _, err := s.conn.Exec(s.t.Context(), `SELECT setval('mythic_cache.awake_until', (extract(epoch FROM now()) * 1000)::bigint + 60000)`); err != nil {
		s.t.Fatal(err)
	}
	return found
}

// goQuiet is what few rows do.
func (s *stepped) goQuiet() {
	s.t.Helper()
	s.door.window = [10]int{}
	s.look()
	s.is(armed)
	s.look()
	s.is(closing)
}

const write = `SELECT mythic_cache.publish('run.started', 'r')`

func do(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// From listening to awake and back, a writer in each gap: it rings where the relay
// needs it and nowhere else. All orders are gone through in schedule_test.go.
func TestWritersRingWhereTheRelayNeedsIt(t *testing.T) {
	s := newStepped(t)
	s.is(awake)
	s.listens()
	writer, reader := s.connect(), s.connect()

	do(t, writer, write)
	if !s.rings() || s.look() != 1 {
		t.Fatal("a writer did not ring while the relay listened")
	}

	s.stayAwake()
	do(t, reader, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_snapshot()`)
	do(t, writer, write)
	if s.rings() {
		t.Error("a writer rang while the relay was awake")
	}
	if s.stayAwake() != 1 {
		t.Error("the awake relay did not find the row")
	}

	// A writer that did not ring, and commits only after the relay wants to sleep.
	do(t, writer, `BEGIN; `+write)
	s.goQuiet()
	s.look()
	s.is(closing) // as long as that one is open
	do(t, writer, `COMMIT`)
	if s.listens() != 1 {
		t.Error("a reading of the closing relay missed the row")
	}
	if s.rings() {
		t.Error("that writer rang after all: the test shows nothing")
	}

	// One whose snapshot is from when the relay was awake reads the newest value.
	do(t, reader, write)
	do(t, reader, `COMMIT`)
	if !s.rings() || s.look() != 1 {
		t.Error("a writer with an old snapshot did not ring")
	}

	// A rolled-back savepoint does not take the ring of what stays along.
	do(t, writer, `BEGIN; SAVEPOINT s; `+write+`; ROLLBACK TO s; `+write+`; COMMIT`)
	if !s.rings() || s.look() != 1 {
		t.Error("a writer with a rolled-back savepoint did not ring")
	}
	do(t, writer, `BEGIN; `+write+`; ROLLBACK`)
	if s.rings() || s.look() != 0 {
		t.Error("a rolled-back writer rang")
	}
}

// A leader that died awake leaves a lease behind; its successor ends it.
func TestASuccessorEndsTheLease(t *testing.T) {
	s := newStepped(t)
	s.listens()
	s.stayAwake()
	conn := s.connect()
	door, err := openDoorbell(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	next := &stepped{s.bed, door, conn, s.from}
	next.listens()
	do(t, s.connect(), write)
	if !next.rings() || next.look() != 1 {
		t.Error("a writer did not ring")
	}
}

func TestRateForgets(t *testing.T) {
	d := &doorbell{}
	now := time.Unix(1000, 0)
	for range 10 {
		now = now.Add(10 * time.Millisecond)
		d.rate(now, 3)
	}
	if n := d.rate(now, 0); n != 30 {
		t.Errorf("%d in the window", n)
	}
	if n := d.rate(now.Add(50*time.Millisecond), 0); n != 15 {
		t.Errorf("%d after half of it", n)
	}
	if n := d.rate(now.Add(time.Hour), 1); n != 1 {
		t.Errorf("%d after an hour", n)
	}
}
