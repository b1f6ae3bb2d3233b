package producers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mythiccache/cache/view"
	"mythiccache/migrations"
)

// app is a database of Mythic's tables in which every user has a book and a run.
type app struct {
	t       testing.TB
	conns   []*pgx.Conn
	numbers atomic.Int64
}

// Enough users that neighbours in an index are not on the same page of it, or few.
const manyUsers, fewUsers = 5000, 20

func newApp(t testing.TB, users int, watched bool, conns int) *app {
	t.Helper()
	a := &app{t: t}
	url := postgres.Database(t)
	if _, err := Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	for range conns {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		a.conns = append(a.conns, conn)
	}
	a.exec(migrations.DemoTables())
	// Room on each page, so that a row which is updated keeps its place in every index.
	a.exec(`ALTER TABLE users SET (fillfactor = 40); ALTER TABLE books SET (fillfactor = 40); ALTER TABLE processing_sessions SET (fillfactor = 40)`)
	a.exec(fmt.Sprintf(`
		INSERT INTO users (id, clerk_user_id) SELECT md5('user ' || n)::uuid, 'user ' || n FROM generate_series(1, %[1]d) n;
		INSERT INTO books (id, user_id) SELECT md5('book ' || n)::uuid, md5('user ' || n)::uuid FROM generate_series(1, %[1]d) n;
		INSERT INTO processing_sessions (id, run_id, user_id) SELECT md5('run ' || n)::uuid, 'run ' || n, md5('user ' || n)::uuid FROM generate_series(1, %[1]d) n`, users))
	if watched {
		views, err := view.Parse("views.yaml", view.Mythic(), func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Install(t.Context(), a.conns[0], views); err != nil {
			t.Fatal(err)
		}
	}
	a.exec(`VACUUM ANALYZE`)
	return a
}

func (a *app) exec(sql string) {
	a.t.Helper()
	if _, err := a.conns[0].Exec(a.t.Context(), sql); err != nil {
		a.t.Fatalf("%s: %v", sql, err)
	}
}

// acts are statements of an app. {user} is the number of a user, of their book and of
// their run; {new} is a number that none has yet.
func acts() map[string]string {
	return map[string]string{
		"insert a run":      `INSERT INTO processing_sessions (id, run_id, user_id) VALUES (md5('new {new}')::uuid, 'new {new}', md5('user {user}')::uuid)`,
		"update a run":      `UPDATE processing_sessions SET status = 'at {new}' WHERE run_id = 'run {user}'`,
		"insert a book":     `INSERT INTO books (id, user_id) VALUES (md5('new {new}')::uuid, md5('user {user}')::uuid)`,
		"update a book":     `UPDATE books SET title = 'at {new}' WHERE id = md5('book {user}')::uuid`,
		"delete a book":     `DELETE FROM books WHERE id = md5('book {user}')::uuid`,
		"count one's books": `SELECT count(*) FROM books WHERE user_id = md5('user {user}')::uuid`,
		"insert a user":     `INSERT INTO users (id, clerk_user_id) VALUES (md5('new {new}')::uuid, 'new {new}')`,
		"update a user":     `UPDATE users SET full_name = 'at {new}' WHERE id = md5('user {user}')::uuid`,
		"rename a user":     `UPDATE users SET clerk_user_id = 'new {new}' WHERE id = md5('user {user}')::uuid`,
		"delete a user":     `DELETE FROM users WHERE id = md5('user {user}')::uuid`,
		"publish":           `SELECT mythic_cache.publish('run.started', 'run {user}')`,
	}
}

func (a *app) act(name string, user int) string {
	sql, known := acts()[name]
	if !known {
		a.t.Fatalf("there is no act %q", name)
	}
	return strings.NewReplacer("{user}", fmt.Sprint(user), "{new}", fmt.Sprint(a.numbers.Add(1))).Replace(sql)
}

// pair is what two transactions do, each about a user.
type pair struct {
	first, second         []string
	firstUser, secondUser int
	secondCommits         bool // before the first
}

// serialized has two SERIALIZABLE transactions take turns and commit. It undoes
// nothing, and reports whether both could be serialized.
func (a *app) serialized(p pair) bool {
	a.t.Helper()
	could := true
	do := func(conn int, sql string) {
		tag, err := a.conns[conn].Exec(a.t.Context(), sql)
		var refused *pgconn.PgError
		switch {
		case errors.As(err, &refused) && (refused.Code == "40001" || refused.Code == "25P02"): // 25P02: what comes after it
			could = false
		case err != nil:
			a.t.Fatalf("%s in %+v: %v", sql, p, err)
		case sql == `COMMIT` && tag.String() != `COMMIT`:
			could = false
		}
	}
	const begin = `BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL lock_timeout = '10s'`
	do(0, begin)
	do(1, begin)
	for i := range max(len(p.first), len(p.second)) {
		if i < len(p.first) {
			do(0, a.act(p.first[i], p.firstUser))
		}
		if i < len(p.second) {
			do(1, a.act(p.second[i], p.secondUser))
		}
	}
	order := []int{0, 1}
	if p.secondCommits {
		order = []int{1, 0}
	}
	do(order[0], `COMMIT`)
	do(order[1], `COMMIT`)
	return could
}

// Transactions about runs and books of different users can be serialized, whatever
// two statements each has and whoever commits first.
func TestSerializableTransactionsAboutRunsAndBooks(t *testing.T) {
	t.Parallel()
	a := newApp(t, manyUsers, true, 2)
	names := []string{"insert a run", "update a run", "insert a book", "update a book", "publish"}
	var all [][]string
	for _, one := range names {
		for _, two := range names {
			all = append(all, []string{one, two})
		}
	}
	for i, first := range all {
		for _, second := range all[i:] {
			for _, secondCommits := range []bool{false, true} {
				if p := (pair{first, second, 1, 2, secondCommits}); !a.serialized(p) {
					t.Errorf("%+v could not be serialized", p)
				}
			}
		}
	}
}

// Owners of runs are not looked for before they are inserted: two transactions that
// looked at one page of the index, and then both inserted into it, could not be
// serialized.
func TestSerializableInsertsOfRunsCanFail(t *testing.T) {
	t.Parallel()
	p := pair{[]string{"insert a run", "insert a run"}, []string{"insert a run", "insert a run"}, 1, 2, false}
	a := newApp(t, manyUsers, true, 2)
	if !a.serialized(p) {
		t.Error("inserts of runs could not be serialized")
	}
	a.exec(`DO $$
		DECLARE f record;
		BEGIN
			FOR f IN SELECT pg_get_functiondef(oid) AS sql FROM pg_proc WHERE pronamespace = 'mythic_cache'::regnamespace AND prosrc LIKE '%ON CONFLICT DO NOTHING%' LOOP
				EXECUTE replace(f.sql, 'ON CONFLICT DO NOTHING', 'WHERE NOT EXISTS (SELECT FROM mythic_cache.owners w WHERE w.view = ''run_status'' AND w.key = u.key) ON CONFLICT DO NOTHING');
			END LOOP;
		END $$`)
	if a.serialized(p) {
		t.Error("with a look at the owners they could, so that the test shows nothing")
	}
}

// Statements about books read users, and those about users read runs, since runs have
// owners. Where only one of two transactions reads what the other writes, both can be
// serialized.
func TestSerializableTransactionsAboutUsers(t *testing.T) {
	t.Parallel()
	bare, watched := newApp(t, manyUsers, false, 2), newApp(t, manyUsers, true, 2)
	user := 10
	check := func(first, second string, same bool) {
		for _, secondCommits := range []bool{false, true} {
			p := pair{[]string{first}, []string{second}, user, user, secondCommits}
			if !same {
				p.secondUser++
			}
			user += 2
			if first != "publish" && !bare.serialized(p) {
				t.Errorf("%+v could not be serialized without triggers, so that it shows nothing", p)
			}
			if !watched.serialized(p) {
				t.Errorf("%+v could not be serialized", p)
			}
		}
	}
	about := []string{"insert a user", "update a user", "rename a user", "delete a user"}
	for i, first := range about {
		for _, second := range about[i:] {
			check(first, second, false)
		}
		for _, second := range []string{"insert a run", "update a run", "insert a book", "update a book", "delete a book"} {
			check(second, first, false)
		}
		check("publish", first, false)
	}
	check("update a book", "update a user", true)
	check("update a book", "rename a user", true)
	check("delete a book", "update a user", true)
	check("update a run", "update a user", true)
	check("update a book", "insert a book", true)
	check("insert a book", "insert a run", true)
}

// These conflicts are new: what each transaction, with its triggers, reads, the other
// writes. In all of them one writes a user. The documentation lists them.
func TestSerializableConflictsThatAreNew(t *testing.T) {
	t.Parallel()
	type apps struct{ bare, watched *app }
	open := func(users int) apps { return apps{newApp(t, users, false, 2), newApp(t, users, true, 2)} }
	large, small := open(manyUsers), open(fewUsers)
	for n, c := range []struct {
		name          string
		in            apps
		first, second []string
		other         bool // the second is about another user
	}{
		{"a run begins while its user changes", large, []string{"insert a run"}, []string{"update a user"}, false},
		{"a run begins while another user changes, where an index has one page", small, []string{"insert a run"}, []string{"update a user"}, true},
		{"a book and a run change while their user does", large, []string{"update a book", "update a run"}, []string{"update a user"}, false},
		{"a book changes while the books are counted for its user", large, []string{"update a book"}, []string{"count one's books", "update a user"}, false},
	} {
		for i, secondCommits := range []bool{false, true} {
			user := 1 + 4*n + 2*i
			p := pair{c.first, c.second, user, user, secondCommits}
			if c.other {
				p.secondUser++
			}
			if !c.in.bare.serialized(p) {
				t.Errorf("%s: without triggers that cannot be serialized either", c.name)
			}
			if c.in.watched.serialized(p) {
				t.Errorf("%s: that can be serialized, which the documentation denies", c.name)
			}
		}
	}
}

// BenchmarkSerializable is a random load of 16 connections, each transaction one to
// three statements about one user. Those that could not be serialized stand in
// failures/1000.
func BenchmarkSerializable(b *testing.B) {
	runsAndBooks := []string{"insert a run", "update a run", "insert a book", "update a book", "count one's books"}
	for _, load := range []struct {
		name string
		acts []string
	}{
		{"runs and books", runsAndBooks},
		{"runs, books and users", append([]string{"insert a user", "update a user"}, runsAndBooks...)},
	} {
		for _, users := range []int{300, manyUsers} {
			for _, watched := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/%d users/watched %v", load.name, users, watched), func(b *testing.B) {
					a := newApp(b, users, watched, 16)
					b.ResetTimer()
					b.ReportMetric(1000*float64(a.load(b.N, load.acts, users))/float64(b.N), "failures/1000")
				})
			}
		}
	}
}

// load runs so many transactions and returns how many could not be serialized.
func (a *app) load(transactions int, acts []string, users int) (failed int64) {
	a.t.Helper()
	var begun, failures atomic.Int64
	var group sync.WaitGroup
	for _, conn := range a.conns {
		group.Go(func() {
			for begun.Add(1) <= int64(transactions) {
				user := 1 + rand.IntN(users)
				var names []string
				for range 1 + rand.IntN(3) {
					names = append(names, acts[rand.IntN(len(acts))])
				}
				slices.Sort(names) // one order of locks: deadlocks would be the app's own
				err := pgx.BeginTxFunc(a.t.Context(), conn, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(tx pgx.Tx) error {
					for _, name := range names {
						if _, err := tx.Exec(a.t.Context(), a.act(name, user)); err != nil {
							return err
						}
					}
					return nil
				})
				var refused *pgconn.PgError
				switch {
				case errors.As(err, &refused) && refused.Code == "40001":
					failures.Add(1)
				case err != nil:
					a.t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return failures.Load()
}
