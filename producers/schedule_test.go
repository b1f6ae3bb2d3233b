package producers

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
)

// A schedule is one order of the steps of some writers and of a relay, each step one
// statement or a few on real PostgreSQL. The tests here go through all of a bound,
// and after each step ask: does the relay sleep while a row that committed is
// unseen, with no notification on its way?
//
// DOORBELL_SCHEDULES=long makes the bound larger: half a million schedules, which take
// some twenty minutes (-timeout 60m).
var longSchedules = os.Getenv("DOORBELL_SCHEDULES") == "long"

// story is what one writer does. {row} in a step inserts the story's next row into the
// outbox, and {touch} writes one there through the trigger of a table, which also rings.
// The relay has to see the rows in kept, and no other.
type story struct {
	name  string
	steps []string
	kept  []int
}

const ring = `SELECT mythic_cache.ring()`

func inserted(isolation string) string { return `BEGIN ISOLATION LEVEL ` + isolation + `; {row}` }

func snapshotted(isolation string) string {
	return `BEGIN ISOLATION LEVEL ` + isolation + `; SELECT pg_current_snapshot()`
}

func stories() map[string]story {
	all := map[string]story{}
	for _, s := range []story{
		{"quick", []string{inserted(`READ COMMITTED`) + `; ` + ring, `COMMIT`}, []int{0}},
		{"read committed", []string{inserted(`READ COMMITTED`), ring, `COMMIT`}, []int{0}},
		{"repeatable read", []string{snapshotted(`REPEATABLE READ`), `{row}`, ring, `COMMIT`}, []int{0}},
		{"serializable", []string{snapshotted(`SERIALIZABLE`), `{row}`, ring, `COMMIT`}, []int{0}},
		{"rolled back", []string{inserted(`READ COMMITTED`), ring, `ROLLBACK`}, nil},
		{"savepoint", []string{`BEGIN; SAVEPOINT s; {row}`, ring, `ROLLBACK TO s; {row}`, ring, `COMMIT`}, []int{1}},
		{"savepoint after a row", []string{inserted(`READ COMMITTED`), ring, `SAVEPOINT s; {row}; ` + ring + `; ROLLBACK TO s`, `COMMIT`}, []int{0}},
		{"savepoint kept", []string{`BEGIN; SAVEPOINT s; {row}`, ring + `; RELEASE s`, `COMMIT`}, []int{0}},
		{"two rows", []string{inserted(`REPEATABLE READ`), ring, `{row}`, ring, `COMMIT`}, []int{0, 1}},
		{"no row", []string{`BEGIN; SELECT pg_current_xact_id()`, `COMMIT`}, nil},
		{"rings first", []string{`BEGIN; ` + ring, `{row}`, `COMMIT`}, []int{0}}, // nobody does; a test shows why
		{"trigger", []string{`BEGIN; {touch}`, `COMMIT`}, []int{0}},
		{"trigger and old snapshot", []string{snapshotted(`REPEATABLE READ`), `{touch}`, `COMMIT`}, []int{0}},
		{"prepared", []string{inserted(`READ COMMITTED`), ring, `PREPARE TRANSACTION '{name}'`, `COMMIT PREPARED '{name}'`}, []int{0}},
		{"prepared and rolled back", []string{inserted(`READ COMMITTED`), ring, `PREPARE TRANSACTION '{name}'`, `ROLLBACK PREPARED '{name}'`}, nil},
	} {
		all[s.name] = s
	}
	return all
}

// bound is all schedules of these writers beside a relay that was awake, and
// may do or suffer each of the following so many times, whenever it may come.
type bound struct {
	writers []string
	busy    int // the relay finds many rows and stays awake, or becomes it
	dies    int // the relay dies, and a successor comes
	expires int // the lease ends, since the relay was stopped, say
}

func (b bound) String() string {
	return fmt.Sprintf("%s; busy %d, dies %d, expires %d", strings.Join(b.writers, " + "), b.busy, b.dies, b.expires)
}

// stage is where schedules are played: a server of its own, since transactions of
// other databases would hold the relay up at moments that no schedule has.
type stage struct {
	*bed
	door    *doorbell // the leader's
	heir    *pgx.Conn // its successor's
	writers []*pgx.Conn
	from    position
	plays   int

	// As the relay does it; or not, to show that it matters.
	open     func(ctx context.Context, conn *pgx.Conn) (*doorbell, error)
	saw      func(ctx context.Context, d *doorbell, rows int, snapshot version.Snapshot) error
	moved    func()        // after awake_until may have been
	patience time.Duration // with a ring that should be there
}

func newStage(t *testing.T, pg *testserver.Postgres) *stage {
	t.Helper()
	s := &stage{bed: newBedOn(t, pg, mythic(t)), open: openDoorbell, moved: func() {}, patience: 10 * time.Second}
	s.saw = func(ctx context.Context, d *doorbell, rows int, snapshot version.Snapshot) error {
		return d.saw(ctx, rows, snapshot)
	}
	s.heir = s.connect()
	for range 3 {
		s.writers = append(s.writers, s.connect())
	}
	leader := s.connect()
	epoch, err := beginEpoch(t.Context(), leader, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.from = fromStart(epoch, "t")
	if s.door, err = openDoorbell(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
	return s
}

// explore plays every schedule of a bound and returns how many there are, or the
// first in which a row waits, and why.
func (s *stage) explore(b bound) (schedules int, failed string) {
	s.t.Helper()
	var taken, of []int
	for {
		i := 0
		play := s.begin(b)
		failed := play.run(func(n int) int {
			if i == len(taken) {
				taken, of = append(taken, 0), append(of, n)
			}
			if of[i] != n {
				s.t.Fatalf("the same steps once lead to %d next ones and once to %d:\n%s", of[i], n, play)
			}
			i++
			return taken[i-1]
		})
		schedules++
		if failed != "" {
			return schedules, failed + ":\n" + play.String()
		}
		for len(taken) > 0 && taken[len(taken)-1]+1 == of[len(of)-1] {
			taken, of = taken[:len(taken)-1], of[:len(of)-1]
		}
		if len(taken) == 0 {
			return schedules, ""
		}
		taken[len(taken)-1]++
	}
}

// play is one schedule under way.
type play struct {
	*stage
	bound    bound
	log      []string
	stories  []story
	at       []int            // the step that each writer takes next
	rows     []int            // how many rows each has inserted
	last     int              // the writer that took the last step; -1 where the relay did
	snapshot version.Snapshot // of the reading that saw has not been told of
	read     bool             // there is one
	ended    bool             // a writer ended since the last reading, or there was none since the barrier
	woken    bool

	committed, seen map[string]bool
}

// begin has a relay awake that has seen all there is, for longer than a test takes.
func (s *stage) begin(b bound) *play {
	s.t.Helper()
	s.plays++
	y := &play{stage: s, bound: b, at: make([]int, len(b.writers)), rows: make([]int, len(b.writers)), last: -1,
		committed: map[string]bool{}, seen: map[string]bool{}}
	for _, name := range b.writers {
		y.stories = append(y.stories, stories()[name])
	}
	s.door.state = awake
	y.lease(time.Hour)
	return y
}

func (y *play) String() string { return "  " + strings.Join(y.log, "\n  ") }

func (y *play) tell(step string) { y.log = append(y.log, step) }

func (y *play) exec(conn *pgx.Conn, sql string) {
	y.t.Helper()
	if _, err := conn.Exec(y.t.Context(), sql); err != nil {
		y.t.Fatalf("%s: %v, after\n%s", sql, err, y)
	}
}

// lease lets awake_until be so far from now, as time alone would.
func (y *play) lease(d time.Duration) {
	y.t.Helper()
	y.exec(y.conn, fmt.Sprintf(`SELECT setval('mythic_cache.awake_until', (extract(epoch FROM clock_timestamp()) * 1000)::bigint + %d)`, d.Milliseconds()))
	y.moved()
}

// next is a step that could be taken next.
type next struct {
	name string
	do   func()
}

// run plays to the end. It returns what is wrong, or ”.
func (y *play) run(choose func(n int) int) (failed string) {
	y.t.Helper()
	for {
		byRelay := y.relayNext()
		if len(byRelay) == 0 {
			y.last = -1
		}
		steps := append(y.writersNext(), byRelay...)
		if len(steps) == 0 {
			break
		}
		step := steps[0]
		if len(steps) > 1 {
			step = steps[choose(len(steps))]
		}
		y.tell(step.name)
		step.do()
		if failed := y.sleeps(); failed != "" {
			return failed
		}
	}
	switch {
	case y.door.state != listening && !y.door.prepared:
		return "the relay does not go to sleep"
	case len(y.unseen()) > 0:
		return "rows were never seen"
	default:
		return ""
	}
}

// sleeps says whether the relay is asleep with no way to hear of a row.
func (y *play) sleeps() string {
	y.t.Helper()
	if y.door == nil || y.read || y.woken || y.door.state != listening || len(y.unseen()) == 0 {
		return ""
	}
	y.exec(y.door.conn, `SELECT`) // what is on its way comes before the reply
	rang, err := y.door.wait(y.t.Context(), y.patience)
	if err != nil {
		y.t.Fatal(err)
	}
	if !rang {
		return "the relay sleeps, and nobody rings"
	}
	y.woken = true
	y.tell("relay: is woken")
	return ""
}

func (y *play) unseen() (subjects []string) {
	for subject := range y.committed {
		if !y.seen[subject] {
			subjects = append(subjects, subject)
		}
	}
	return subjects
}

// writersNext leaves out what makes no difference: steps of different writers that
// no step of the relay parts come in the order of the writers, and of two writers
// with the same story the first begins first.
func (y *play) writersNext() (steps []next) {
	for w, s := range y.stories {
		if y.at[w] == len(s.steps) || y.last > w || w > 0 && y.at[w] == 0 && y.at[w-1] == 0 && y.stories[w-1].name == s.name {
			continue
		}
		steps = append(steps, next{fmt.Sprintf("writer %d: %s", w, s.steps[y.at[w]]), func() { y.write(w) }})
	}
	return steps
}

func (y *play) write(w int) {
	y.t.Helper()
	s := y.stories[w]
	sql := s.steps[y.at[w]]
	subject := y.subject(w, y.rows[w])
	y.exec(y.writers[w], strings.NewReplacer("{name}", fmt.Sprintf("p%d-%d", y.plays, w),
		"{row}", fmt.Sprintf(`INSERT INTO mythic_cache.outbox (type, subject) VALUES ('run.started', '%s')`, subject),
		"{touch}", fmt.Sprintf(`INSERT INTO users (clerk_user_id) VALUES ('%s')`, subject)).Replace(sql))
	y.rows[w] += strings.Count(sql, "{row}") + strings.Count(sql, "{touch}")
	y.at[w]++
	y.last = w
	if y.at[w] < len(s.steps) {
		return
	}
	y.ended = true
	for _, row := range s.kept {
		y.committed[y.subject(w, row)] = true
	}
}

func (y *play) subject(writer, row int) string { return fmt.Sprintf("%d/%d/%d", y.plays, writer, row) }

func (y *play) relayNext() (steps []next) {
	if y.door == nil {
		return []next{{"relay: a successor comes", y.byRelay(y.succeeds)}}
	}
	may := func(name string, do func()) { steps = append(steps, next{"relay: " + name, y.byRelay(do)}) }
	decide := func() {
		may("has not found many rows", func() { y.told(0) })
		if y.bound.busy > 0 {
			may("has found many rows", func() { y.bound.busy--; y.told(awakeFrom); y.lease(time.Hour) })
		}
	}
	switch {
	case y.door.prepared:
		if y.ended || y.last >= 0 {
			may("looks", func() { y.look(); y.told(0) })
		}
	case y.read:
		decide()
	case y.door.state == awake || y.door.state == armed:
		// What it reads here is left out: it decides nothing, and the relay reads again.
		decide()
	case y.woken || y.door.state == closing && y.ended:
		may("looks", y.look)
	}
	if y.bound.dies > 0 {
		may("dies", func() { y.bound.dies--; y.dies() })
	}
	if y.bound.expires > 0 {
		may("its lease ends", func() { y.bound.expires--; y.lease(-time.Hour) })
	}
	return steps
}

func (y *play) byRelay(do func()) func() { return func() { do(); y.last = -1 } }

// dies leaves a session to the server, which ends what it listened to.
func (y *play) dies() {
	y.t.Helper()
	gone := y.door.conn
	y.exec(gone, `UNLISTEN *`)
	y.forgetRings()
	y.door, y.heir, y.read, y.woken = nil, gone, false, false
}

func (y *play) succeeds() {
	y.t.Helper()
	door, err := y.open(y.t.Context(), y.heir)
	if err != nil {
		y.t.Fatal(err)
	}
	y.door = door
}

// look reads. A ring from before is of nothing that the relay has not seen now; it
// could be late and wake it once more, but no promise rests on it.
func (y *play) look() {
	y.t.Helper()
	found, err := read(y.t.Context(), y.door.conn, y.from, batchRows, remapKeys)
	if err != nil {
		y.t.Fatal(err)
	}
	y.from.seen = found.snapshot
	for _, r := range found.rows {
		if _, _, entry := r.event(found.snapshot.Version()); !entry {
			continue // it carries join columns only
		}
		if !y.committed[r.subject] || y.seen[r.subject] {
			y.t.Fatalf("row %s was read after\n%s", r.subject, y)
		}
		y.seen[r.subject] = true
	}
	if missed := y.unseen(); len(missed) > 0 {
		y.t.Fatalf("a reading missed %q after\n%s", missed, y)
	}
	if y.forgetRings() && y.door.prepared {
		y.t.Fatalf("a writer rang that could not be prepared then, after\n%s", y)
	}
	y.snapshot, y.read, y.ended, y.woken = found.snapshot, true, false, false
}

// forgetRings reports whether anybody rang.
func (y *play) forgetRings() (rang bool) {
	y.t.Helper()
	state := y.door.state
	y.door.state = listening // wait for rings alone
	defer func() { y.door.state = state }()
	for {
		more, err := y.door.wait(y.t.Context(), 0)
		if err != nil {
			y.t.Fatal(err)
		}
		if !more {
			return rang
		}
		rang = true
	}
}

// told lets the relay decide on its reading, as if it had found so many rows lately.
func (y *play) told(rows int) {
	y.t.Helper()
	before := y.door.state
	y.door.window = [10]int{}
	if err := y.saw(y.t.Context(), y.door, rows, y.snapshot); err != nil {
		y.t.Fatal(err)
	}
	y.moved()
	y.log[len(y.log)-1] += ", and is " + [...]string{listening: "listening", awake: "awake", armed: "armed", closing: "closing"}[y.door.state]
	y.read = false
	y.ended = y.ended || before != closing && y.door.state == closing
}

func TestNoRowWaitsForTheFallbackPoll(t *testing.T) {
	t.Parallel()
	s := newStage(t, quietPostgres(t, nil))
	total := 0
	for _, b := range bounds() {
		started := time.Now()
		n, failed := s.explore(b)
		if failed != "" {
			t.Fatalf("%s: %s", b, failed)
		}
		total += n
		t.Logf("%s: %d schedules in %s", b, n, time.Since(started).Round(time.Millisecond))
	}
	t.Logf("%d schedules", total)
}

// quietPostgres has no transactions but the test's.
func quietPostgres(t *testing.T, settings map[string]string) *testserver.Postgres {
	t.Helper()
	all := map[string]string{"autovacuum": "off"}
	maps.Copy(all, settings)
	return testserver.NewPostgres(t, all)
}

func bounds() (all []bound) {
	if longSchedules {
		return longBounds()
	}
	for _, name := range []string{"repeatable read", "serializable", "rolled back", "savepoint", "savepoint after a row", "savepoint kept", "two rows",
		"trigger", "trigger and old snapshot"} {
		all = append(all, bound{writers: []string{name}})
	}
	return append(all,
		bound{writers: []string{"read committed"}, busy: 1},
		bound{writers: []string{"quick"}, dies: 1},
		bound{writers: []string{"read committed"}, expires: 1},
		bound{writers: []string{"read committed", "quick"}},
	)
}

func longBounds() (all []bound) {
	short := []string{"read committed", "repeatable read", "rolled back", "trigger", "trigger and old snapshot"}
	long := []string{"serializable", "savepoint", "savepoint after a row", "savepoint kept", "two rows"}
	for i, name := range short {
		for _, other := range short[i:] {
			all = append(all, bound{writers: []string{name, other}})
		}
	}
	for _, name := range long {
		all = append(all, bound{writers: []string{name, "quick"}})
	}
	for _, name := range append(short, long...) {
		alone := []string{name}
		all = append(all, bound{writers: alone, busy: 2}, bound{writers: alone, dies: 1}, bound{writers: alone, expires: 1}, bound{writers: alone, busy: 1, expires: 1})
	}
	return append(all,
		bound{writers: []string{"read committed", "quick"}, busy: 1},
		bound{writers: []string{"quick", "quick"}, dies: 1},
		bound{writers: []string{"quick", "quick"}, busy: 1, expires: 1},
		bound{writers: []string{"quick", "no row", "quick"}},
		bound{writers: []string{"quick", "quick", "quick"}},
	)
}

// Each rule of the doorbell is needed: without it there is a schedule in which the
// relay sleeps though a row is unseen, and the search finds it.
func TestTheSchedulesCanFail(t *testing.T) {
	t.Parallel()
	pg := quietPostgres(t, nil)
	for _, c := range []struct {
		name  string
		bound bound
		spoil func(s *stage)
	}{
		{"the barrier before writers ring", bound{writers: []string{"read committed"}}, func(s *stage) {
			s.saw = func(ctx context.Context, d *doorbell, rows int, snapshot version.Snapshot) error {
				var err error
				switch d.state {
				case awake:
					err = d.takeBarrier(ctx)
					d.state = armed
				case armed:
					err = d.arm(ctx)
					d.state = closing
				default:
					return d.saw(ctx, rows, snapshot)
				}
				return err
			}
		}},
		{"no wait for the barrier", bound{writers: []string{"read committed"}}, func(s *stage) {
			s.saw = func(ctx context.Context, d *doorbell, rows int, snapshot version.Snapshot) error {
				d.barrier = 0
				return d.saw(ctx, rows, snapshot)
			}
		}},
		{"a ring before the row", bound{writers: []string{"rings first"}}, func(s *stage) {}},
		{"a lease in a row", bound{writers: []string{"repeatable read"}}, func(s *stage) {
			// Had it been no transaction's, an old snapshot would not see the old one.
			s.exec(`CREATE TABLE mythic_cache.awake AS SELECT 0::bigint AS until;
				CREATE OR REPLACE FUNCTION mythic_cache.ring() RETURNS void LANGUAGE sql AS
				$$ SELECT pg_notify('mythic_cache', '') FROM mythic_cache.awake WHERE until < extract(epoch FROM clock_timestamp()) * 1000 $$`)
			s.moved = func() {
				s.exec(`UPDATE mythic_cache.awake SET until = (SELECT last_value FROM mythic_cache.awake_until)`)
			}
		}},
		{"a successor that sleeps at once", bound{writers: []string{"read committed"}, dies: 1}, func(s *stage) {
			s.open = func(ctx context.Context, conn *pgx.Conn) (*doorbell, error) {
				d, err := openDoorbell(ctx, conn)
				if err == nil {
					d.state = listening
				}
				return d, err
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, pg)
			s.patience = 0
			c.spoil(s)
			n, failed := s.explore(c.bound)
			if !strings.Contains(failed, "nobody rings") {
				t.Fatalf("%d schedules, and what they say is %q", n, failed)
			}
			t.Logf("schedule %d: %s", n, failed)
		})
	}
}

// Where transactions can be prepared nobody may ring, and the relay looks by itself.
// One that stays prepared holds nothing up.
func TestNoRowWaitsWhereTransactionsArePrepared(t *testing.T) {
	t.Parallel()
	s := newStage(t, quietPostgres(t, map[string]string{"max_prepared_transactions": "10"}))
	s.exec(`BEGIN`)
	s.exec(`SELECT mythic_cache.publish('run.started', 'long prepared')`)
	s.exec(`PREPARE TRANSACTION 'long'`)
	writers := [][]string{{"prepared"}, {"prepared and rolled back"}, {"savepoint"}, {"prepared", "quick"}}
	if longSchedules {
		writers = append(writers, []string{"prepared", "prepared"}, []string{"repeatable read", "prepared"})
	}
	for _, writers := range writers {
		b := bound{writers: writers}
		n, failed := s.explore(b)
		if failed != "" {
			t.Fatalf("%s: %s", b, failed)
		}
		t.Logf("%s: %d schedules", b, n)
	}
	s.exec(`COMMIT PREPARED 'long'`)
	started := time.Now()
	look, err := s.door.wait(t.Context(), 10*time.Second)
	if took := time.Since(started); err != nil || !look || took < preparedGap {
		t.Errorf("after %s the relay is to look: %v, %v", took, look, err)
	}
	found, err := read(t.Context(), s.door.conn, s.from, batchRows, remapKeys)
	if err != nil || len(found.rows) != 1 || found.rows[0].subject != "long prepared" {
		t.Errorf("the relay reads %+v, %v", found.rows, err)
	}
}
