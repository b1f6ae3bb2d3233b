package producers

import (
	"errors"
	"slices"
	"testing"

	"mythiccache/internal/testserver"
)

// tasks have owners, and no index of the app's keeps their keys apart: two statements
// that give the same keys meet in the owners alone.
const tasks = `
  tasks:
    key: [task]
    ttl: 1m
    load: SELECT to_json(count(*)) FROM tasks t WHERE t.task = $1
    tables: {tasks: SELECT task FROM changed}
    owners: {tasks: 'SELECT task, person FROM changed'}
`

func newTasksBed(t *testing.T) *bed {
	t.Helper()
	b := newBed(t)
	b.exec(`CREATE TABLE tasks (n int, task text, person text)`)
	b.views = parse(t, mythicText()+tasks)
	b.installQuietly()
	return b
}

// In whatever order a statement gives keys, their owners are written in one.
func TestOwnersAreWrittenInTheOrderOfTheirKeys(t *testing.T) {
	b := newTasksBed(t)
	for _, c := range []struct {
		name, sql string
		keys      int
	}{
		{"two rows", `INSERT INTO tasks (task, person) VALUES ('b', 'ann'), ('a', 'bob')`, 2},
		{"not as a language sorts", `INSERT INTO tasks (task, person) VALUES ('ä', 'ann'), ('a', 'ann'), ('z', 'ann'), ('B', 'ann'), ('b', 'ann')`, 5},
		{"many rows", `INSERT INTO tasks SELECT n, md5(n::text), 'ann' FROM generate_series(1, 300) n`, 300},
		{"an update", `UPDATE tasks SET task = md5('new' || n) WHERE n > 0`, 300},
	} {
		b.exec(`TRUNCATE mythic_cache.owners`)
		b.exec(c.sql)
		keys := one[[]string](b, `SELECT array_agg(key ORDER BY ctid) FROM mythic_cache.owners WHERE view = 'tasks'`)
		if len(keys) != c.keys || !slices.IsSorted(keys) {
			t.Errorf("%s: the owners of %d keys were written in the order %q", c.name, len(keys), keys)
		}
	}
}

// In the order that statements give them, owners would be a deadlock:
//
//  1. a third transaction has written m, and has not committed;
//  2. one statement writes b and waits for m, another writes a and waits for m;
//  3. the third rolls back, and one of the two writes m;
//  4. it waits for the other's first key, and the other for m.
func TestStatementsThatGiveTheSameOwnersDoNotDeadlock(t *testing.T) {
	b := newTasksBed(t)
	third := b.connect()
	do(t, third, `BEGIN; INSERT INTO tasks (task) VALUES ('m')`)
	done := make(chan error, 2)
	var pids []uint32
	for _, keys := range []string{`('b'), ('m'), ('a')`, `('a'), ('m'), ('b')`} {
		conn := b.connect()
		pids = append(pids, conn.PgConn().PID())
		go func() {
			_, err := conn.Exec(t.Context(), `INSERT INTO tasks (task) VALUES `+keys)
			done <- err
		}()
	}
	testserver.Eventually(t, "both statements wait", func() error {
		if one[int](b, `SELECT count(*) FROM unnest($1::int[]) pid WHERE cardinality(pg_blocking_pids(pid)) > 0`, pids) < 2 {
			return errors.New("they do not")
		}
		return nil
	})
	do(t, third, `ROLLBACK`)
	for range pids {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if keys := one[[]string](b, `SELECT array_agg(key ORDER BY key) FROM mythic_cache.owners WHERE view = 'tasks'`); !slices.Equal(keys, []string{"a", "b", "m"}) {
		t.Errorf("the owners are of %q", keys)
	}
}
