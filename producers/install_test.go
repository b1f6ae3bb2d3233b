package producers

import (
	"slices"
	"strings"
	"testing"

	"mythiccache/migrations"
)

// shape describes every object outside our schema, triggers included.
func (b *bed) shape() string {
	b.t.Helper()
	return one[string](b, `SELECT string_agg(line, E'\n' ORDER BY line) FROM (
		SELECT format('%s.%s %s %s %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull) FROM pg_class c
		  JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'mythic_cache') AND n.nspname NOT LIKE 'pg\_%'
		UNION ALL SELECT format('trigger %s on %s', tgname, tgrelid::regclass) FROM pg_trigger WHERE NOT tgisinternal
		UNION ALL SELECT format('function %s', p.oid::regprocedure) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'
		UNION ALL SELECT format('schema %s', nspname) FROM pg_namespace WHERE nspname NOT LIKE 'pg\_%') AS s(line)`)
}

func TestUpDownUpLeavesTheAppAlone(t *testing.T) {
	b := newBed(t)
	watched := b.shape()
	if err := MigrateDown(t.Context(), b.url); err != nil {
		t.Fatal(err)
	}
	bare := b.shape()
	if strings.Contains(bare, "mythic_cache") {
		t.Errorf("something of ours is left:\n%s", bare)
	}
	for line := range strings.SplitSeq(watched, "\n") {
		if !strings.Contains(line, "mythic_cache") && !strings.Contains(bare, line) {
			t.Errorf("migrate down took away %s", line)
		}
	}
	if err := MigrateDown(t.Context(), b.url); err != nil {
		t.Errorf("a second time: %v", err)
	}
	b.exec(migrations.DemoRows())
	if steps, err := MigrateStatus(t.Context(), b.url); err != nil || len(steps) == 0 || steps[0].Applied {
		t.Errorf("status: %+v, %v", steps, err)
	}
	if taken, err := Migrate(t.Context(), b.url); err != nil || len(taken) == 0 {
		t.Errorf("up: %+v, %v", taken, err)
	}
	if taken, err := Migrate(t.Context(), b.url); err != nil || len(taken) != 0 {
		t.Errorf("up again: %+v, %v", taken, err)
	}
	if steps, err := MigrateStatus(t.Context(), b.url); err != nil || !steps[0].Applied {
		t.Errorf("status: %+v, %v", steps, err)
	}
	b.install()
	if again := b.shape(); again != watched {
		t.Errorf("up again:\n%s\nwas:\n%s", again, watched)
	}
	// Runs from before the triggers have their owners, and that is no event.
	if n := one[int](b, `SELECT count(*) FROM mythic_cache.owners`); n != 400 {
		t.Errorf("%d owners", n)
	}
	if n := one[int](b, `SELECT count(*) FROM mythic_cache.outbox WHERE subject IS NOT NULL`); n != 0 {
		t.Errorf("%d outbox rows", n)
	}
	if err := Uninstall(t.Context(), b.conn); err != nil {
		t.Fatal(err)
	}
	if left := b.shape(); strings.Contains(left, "trigger mythic_cache") {
		t.Errorf("Uninstall left\n%s", left)
	}
}

func TestManyMigrateAtOnce(t *testing.T) {
	b := newBed(t)
	if err := MigrateDown(t.Context(), b.url); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	for range 3 {
		go func() { _, err := Migrate(t.Context(), b.url); done <- err }()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestDemoMayBeLoadedAgain(t *testing.T) {
	b := newBed(t)
	for range 2 {
		b.exec(migrations.DemoTables())
		b.exec(migrations.DemoRows())
		if n := one[string](b, `SELECT concat_ws(' ', (SELECT count(*) FROM users), (SELECT count(*) FROM books), (SELECT count(*) FROM processing_sessions))`); n != "300 900 400" {
			t.Errorf("rows: %s", n)
		}
	}
}

func TestTablesMayComeLater(t *testing.T) {
	b := newBed(t)
	b.exec(`DROP TABLE books, processing_sessions, users`)
	want := []string{
		"mythic_cache.owners is no longer watched", "mythic_cache.run_events is no longer watched",
		"public.books is no longer watched", "public.processing_sessions is no longer watched", "public.users is no longer watched",
		"view run_status waits for tables that do not exist yet: processing_sessions, users",
		"view user_books waits for tables that do not exist yet: books, users",
	}
	if said := b.install(); !slices.Equal(said, want) {
		t.Errorf("Install said\n%s", strings.Join(said, "\n"))
	}
	b.exec(migrations.DemoTables())
	if err := b.drift(b.views); err == nil || !strings.Contains(err.Error(), "public.books is not watched") {
		t.Errorf("Drift: %v", err)
	}
	if said := b.install(); len(said) != 5 || said[2] != "public.books is watched for user_books" {
		t.Errorf("Install said\n%s", strings.Join(said, "\n"))
	}
	if err := b.drift(b.views); err != nil {
		t.Errorf("Drift: %v", err)
	}
}

func TestDriftIsNamed(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct{ sql, says, mend string }{
		{`ALTER TABLE books DISABLE TRIGGER mythic_cache_update`, "public.books lacks triggers, or has disabled ones", `ALTER TABLE books ENABLE TRIGGER mythic_cache_update`},
		{`DROP TRIGGER mythic_cache_truncate ON users`, "public.users lacks triggers", ``},
		{`CREATE TABLE books_new (LIKE books INCLUDING ALL); DROP TABLE books; ALTER TABLE books_new RENAME TO books`, "public.books is not watched", ``},
		{`CREATE SCHEMA other; SET search_path = other, public`, "public.books is watched for other views than these", `SET search_path = public`},
	} {
		b.exec(c.sql)
		if err := b.drift(b.views); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.sql, err)
		}
		b.exec(c.mend)
		b.install()
		if err := b.drift(b.views); err != nil {
			t.Errorf("mended, after %s: %v", c.sql, err)
		}
	}
	other := parse(t, `views: {u: {key: [id], ttl: 1m, load: "SELECT to_json(email) FROM users WHERE clerk_user_id = $1", tables: {users: "SELECT clerk_user_id FROM changed"}}}`)
	if err := b.drift(other); err == nil || !strings.Contains(err.Error(), "public.users is watched for other views") || !strings.Contains(err.Error(), "public.books is watched, but no view maps it") {
		t.Errorf("other views: %v", err)
	}
}

func TestWhatCannotBeWatchedIsRefused(t *testing.T) {
	b := newBed(t)
	b.exec(`CREATE MATERIALIZED VIEW stale AS SELECT 1 AS one; CREATE VIEW names AS SELECT id, email FROM users; CREATE VIEW firsts AS SELECT * FROM names;
		CREATE FUNCTION parsed() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM users; END; CREATE TABLE documents (id int, body json)`)
	const books = `books: "SELECT run_id FROM changed"`
	for _, c := range []struct{ load, tables, says string }{
		{`SELECT to_json(count(*)) FROM books JOIN users u ON u.id = user_id WHERE run_id = $1`, books, "its load reads public.users, which the view does not map"},
		{`SELECT to_json(count(*)) FROM books, firsts WHERE run_id = $1`, books, "its load reads public.users, which"},
		{`SELECT to_json(parsed() + count(*)) FROM books WHERE run_id = $1`, books, "its load reads public.users, which"},
		{`SELECT to_json(count(*)) FROM books, stale WHERE run_id = $1`, books, "its load reads public.stale, a materialised view"},
		{`SELECT to_json(no_such_column) FROM books WHERE run_id = $1`, books, `its load: ERROR: column "no_such_column" does not exist`},
		{`SELECT to_json(1) FROM no_such_table WHERE $1 = ''`, books, `its load: ERROR: relation "no_such_table" does not exist`},
		{`SELECT to_json(1) FROM books WHERE $1 = ''`, `books: "SELECT u.email FROM changed c JOIN users u ON u.id = c.user_id"`, "the mapping of books (line 1): it reads public.users, which the view does not map"},
		{`SELECT to_json(1) FROM books WHERE $1 = ''`, `books: "SELECT run_id, title FROM changed"`, "the mapping of books (line 1): it selects 2 columns, not 1"},
		{`SELECT to_json(1) FROM books WHERE $1 = ''`, `books: "SELECT no_such_column FROM changed"`, `the mapping of books (line 1): ERROR: column "no_such_column" does not exist`},
		{`SELECT to_json(1) FROM names WHERE $1 = ''`, `names: "SELECT email FROM changed"`, "names is not a table"},
		{`SELECT to_json(1) FROM users WHERE $1 = ''`, `users: "SELECT email FROM changed", documents: "SELECT u.email FROM changed c JOIN users u ON u.email = c.body->>'x'"`, "the columns it joins by"},
		{`SELECT to_json(1) FROM users WHERE $1 = ''`, `users: "SELECT email FROM changed WHERE '$mythic_cache$' <> ''"`, "quotes our own text"},
	} {
		views := parse(t, `views: {v: {key: [k], ttl: 1m, load: "`+c.load+`", tables: {`+c.tables+`}}}`)
		before := one[string](b, `SELECT string_agg(hash, '' ORDER BY relation) FROM mythic_cache.triggers`)
		if _, err := Install(t.Context(), b.conn, views); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s | %s:\n got %v\nwant %s", c.load, c.tables, err, c.says)
		}
		if after := one[string](b, `SELECT string_agg(hash, '' ORDER BY relation) FROM mythic_cache.triggers`); after != before {
			t.Errorf("%s: a refused view changed triggers", c.load)
		}
	}
	if n := one[int](b, `SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()`); n != 0 {
		t.Errorf("%d temporary objects are left", n)
	}
}

// A whole row names no column in pg_depend; all of them are needed then.
func TestAMappingOfWholeRowsJoinsByAllColumns(t *testing.T) {
	b := newBed(t)
	b.exec(`CREATE TABLE tags (id int, name text)`)
	b.views = parse(t, `views: {v: {key: [k], ttl: 1m, load: "SELECT to_json(1) FROM tags, users WHERE $1 = ''",
		tables: {users: "SELECT clerk_user_id FROM changed", tags: "SELECT (c).name || coalesce(u.email, '') FROM changed c LEFT JOIN users u ON u.clerk_user_id = to_jsonb(c)->>'name'"}}}`)
	b.install()
	b.relay()
	if got := b.changes(func() { b.exec(`INSERT INTO tags VALUES (1, 'x')`) }); !slices.Equal(got, []string{"tags.changed v x"}) {
		t.Errorf("got %q", got)
	}
	if joins := one[string](b, `SELECT joins::text FROM mythic_cache.outbox WHERE type = 'tags.changed'`); joins != `[{"id": 1, "name": "x"}]` {
		t.Errorf("joins %s", joins)
	}
}
