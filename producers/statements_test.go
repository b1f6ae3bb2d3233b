package producers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// people fills the tables: ann and bob with two books and a run each.
func (b *bed) people() {
	b.t.Helper()
	b.exec(`INSERT INTO users (clerk_user_id) VALUES ('ann'), ('bob'), (NULL)`)
	b.exec(`INSERT INTO books (user_id, run_id, title) SELECT id, clerk_user_id || n, 'old' FROM users, generate_series(1, 2) n WHERE clerk_user_id IS NOT NULL`)
	b.exec(`INSERT INTO processing_sessions (run_id, user_id) SELECT 'run-' || clerk_user_id, id FROM users WHERE clerk_user_id IS NOT NULL`)
}

func TestEveryStatementGivesItsKeys(t *testing.T) {
	b := newBed(t)
	b.people()
	b.relay()
	sql := func(statements ...string) func() {
		return func() {
			for _, s := range statements {
				b.exec(s)
			}
		}
	}
	copyIn := func(table string, columns []string, rows ...[]any) func() {
		return func() {
			if _, err := b.conn.CopyFrom(t.Context(), pgx.Identifier{table}, columns, pgx.CopyFromRows(rows)); err != nil {
				t.Fatal(err)
			}
		}
	}
	ann := one[string](b, `SELECT id::text FROM users WHERE clerk_user_id = 'ann'`)
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{"insert", sql(`INSERT INTO books (user_id, title) SELECT id, 'new' FROM users WHERE clerk_user_id = 'ann'`), `books.changed user_books ann`},
		{"insert of nobody's", sql(`INSERT INTO books (title) VALUES ('nobody''s')`), ``},
		{"insert of one without a key", sql(`INSERT INTO books (user_id) SELECT id FROM users WHERE clerk_user_id IS NULL`), ``},
		{"update", sql(`UPDATE books SET title = 'newer' WHERE title = 'new'`), `books.changed user_books ann`},
		{"update of nothing", sql(`UPDATE books SET title = 'newer' WHERE title = 'there is none'`), ``},
		{"update of all", sql(`UPDATE books SET title = title || '!'`), `books.changed user_books ann|books.changed user_books bob`},
		{"a book moves", sql(`UPDATE books SET user_id = (SELECT id FROM users WHERE clerk_user_id = 'bob') WHERE run_id = 'ann2'`), `books.changed user_books ann|books.changed user_books bob`},
		{"delete", sql(`DELETE FROM books WHERE run_id = 'ann2'`), `books.changed user_books bob`},
		{"upsert that inserts", sql(`INSERT INTO users (clerk_user_id) VALUES ('cid') ON CONFLICT (clerk_user_id) DO UPDATE SET email = 'x'`), `users.changed user_books cid`},
		{"upsert that updates", sql(`INSERT INTO users (clerk_user_id) VALUES ('cid') ON CONFLICT (clerk_user_id) DO UPDATE SET email = 'x'`), `users.changed user_books cid`},
		{"upsert that does nothing", sql(`INSERT INTO users (clerk_user_id) VALUES ('cid') ON CONFLICT DO NOTHING`), ``},
		{"copy", copyIn("books", []string{"user_id", "title"}, []any{ann, "a"}, []any{ann, "b"}), `books.changed user_books ann`},
		{"merge", sql(`MERGE INTO books b USING (SELECT id, clerk_user_id FROM users WHERE clerk_user_id IN ('ann', 'cid')) u ON b.user_id = u.id AND b.title = 'a'
			WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (user_id, title) VALUES (u.id, 'merged')`), `books.changed user_books ann|books.changed user_books cid`},
		{"a statement within a statement", sql(`WITH gone AS (DELETE FROM books WHERE title = 'merged' RETURNING user_id) UPDATE users SET email = 'y' WHERE clerk_user_id = 'bob'`),
			`books.changed user_books cid|users.changed run_status run-bob|users.changed user_books bob`},
		{"a user's key changes", sql(`UPDATE users SET clerk_user_id = 'anna' WHERE clerk_user_id = 'ann'`), `users.changed run_status run-ann|users.changed user_books ann|users.changed user_books anna`},
		{"run events", sql(`INSERT INTO mythic_cache.run_events VALUES ('app', '1', 'run-x', 'run.started', now(), '{}'), ('app', '2', 'run-x', 'run.progress', now(), '{}')`), `run_events.changed run_status run-x`},
		{"a session", sql(`UPDATE processing_sessions SET progress_percentage = 5 WHERE run_id = 'run-bob'`), `processing_sessions.changed run_status run-bob`},
		{"a new session is owned", sql(`INSERT INTO processing_sessions (run_id) VALUES ('run-n')`), `owners.changed run_status run-n|processing_sessions.changed run_status run-n`},
		{"cascade", sql(`DELETE FROM users WHERE clerk_user_id = 'bob'`), `processing_sessions.changed run_status run-bob|users.changed user_books bob`},
		{"a key that is too long", sql(`INSERT INTO processing_sessions (run_id) VALUES (repeat('x', 513))`), `processing_sessions.changed run_status`},
		{"truncate", sql(`TRUNCATE books`), `books.changed user_books`},
		{"rollback", sql(`BEGIN`, `INSERT INTO users (clerk_user_id) VALUES ('never')`, `ROLLBACK`), ``},
		{"rolled-back savepoint", sql(`BEGIN`, `INSERT INTO users (clerk_user_id) VALUES ('kept')`, `SAVEPOINT s`,
			`INSERT INTO users (clerk_user_id) VALUES ('never')`, `ROLLBACK TO s`, `COMMIT`), `users.changed user_books kept`},
		{"released savepoint", sql(`BEGIN`, `SAVEPOINT s`, `UPDATE users SET email = 'z' WHERE clerk_user_id = 'kept'`, `RELEASE s`, `COMMIT`), `users.changed user_books kept`},
		{"serializable", sql(`BEGIN ISOLATION LEVEL SERIALIZABLE`, `UPDATE users SET email = 'z' WHERE clerk_user_id = 'kept'`, `COMMIT`), `users.changed user_books kept`},
		{"published, kept and rolled back", sql(`BEGIN`, `SELECT mythic_cache.publish('run.started', 'r1')`, `SAVEPOINT s`,
			`SELECT mythic_cache.publish('run.started', 'r2')`, `ROLLBACK TO s`, `COMMIT`), `run.started  r1`},
	} {
		if got := strings.Join(b.changes(c.do), "|"); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
	if owner := one[string](b, `SELECT owner FROM mythic_cache.owners WHERE key = 'run-bob'`); owner == "" {
		t.Error("the owner of a run whose row went is not known")
	}
}

func TestManyRowsOfFewKeysAreFewEntries(t *testing.T) {
	b := newBed(t)
	b.exec(`INSERT INTO users (clerk_user_id) SELECT 'u' || n FROM generate_series(1, 200) n`)
	b.exec(`INSERT INTO books (user_id, title) SELECT id, 't' FROM users, generate_series(1, 500)`)
	b.relay()
	var took time.Duration
	got := b.changes(func() {
		started := time.Now()
		b.exec(`UPDATE books SET title = 'u'`)
		took = time.Since(started)
	})
	if len(got) != 200 || !strings.HasPrefix(got[0], "books.changed user_books u1") {
		t.Errorf("%d entries, of which the first is %v", len(got), got[:min(1, len(got))])
	}
	t.Logf("100,000 rows of 200 users took %s", took)
}

// A statement of as many keys as rows: join columns are spread over the rows, and
// no view is fenced for it.
func TestManyKeysTravelAllAndOnce(t *testing.T) {
	b := newBed(t)
	b.exec(`INSERT INTO users (clerk_user_id) SELECT 'u' || n FROM generate_series(1, 8000) n`)
	b.exec(`INSERT INTO books (user_id) SELECT id FROM users`)
	if n := one[int](b, `SELECT max(jsonb_array_length(joins)) FROM mythic_cache.outbox`); n != 1000 {
		t.Errorf("a row carries %d join records", n)
	}
	b.relay()
	b.sync()
	seen := map[string]int{}
	for _, e := range b.entries() {
		if e.Type == "books.changed" {
			seen[e.Subject]++
		}
	}
	if len(seen) != 8000 {
		t.Errorf("%d keys", len(seen))
	}
	for key, n := range seen {
		// A batch may give a key by its second run whose row is in a later batch.
		if key == "" || n > 2 {
			t.Errorf("%q travelled %d times", key, n)
		}
	}
}

func TestPartitionsAndHeirsAreWatched(t *testing.T) {
	b := newBed(t)
	b.exec(`CREATE TABLE notes (owner text, part int) PARTITION BY LIST (part);
		CREATE TABLE notes_1 PARTITION OF notes FOR VALUES IN (1);
		CREATE TABLE notes_rest PARTITION OF notes DEFAULT PARTITION BY LIST (part);
		CREATE TABLE notes_2 PARTITION OF notes_rest FOR VALUES IN (2);
		CREATE TABLE old_notes (owner text); CREATE TABLE older_notes () INHERITS (old_notes)`)
	b.views = parse(t, `views: {notes: {key: [owner, part], ttl: 1m, load: "SELECT to_json(count(*)) FROM notes, old_notes WHERE notes.owner = $1 AND notes.part = $2::int",
		tables: {notes: "SELECT owner, part FROM changed", old_notes: "SELECT owner, 0 FROM changed"}}}`)
	b.install()
	b.relay()
	for sql, want := range map[string]string{
		`INSERT INTO notes VALUES ('a:b', 1), ('c', 2)`:     `notes.changed notes a%3Ab:1|notes.changed notes c:2`,
		`INSERT INTO notes_1 VALUES ('leaf', 1)`:            `notes.changed notes leaf:1`,
		`INSERT INTO notes_rest VALUES ('between', 2)`:      `notes.changed notes between:2`,
		`UPDATE notes_2 SET owner = 'd%' WHERE owner = 'd'`: ``,
		`INSERT INTO older_notes VALUES ('heir')`:           `old_notes.changed notes heir:0`,
		`UPDATE old_notes SET owner = 'heir''s'`:            ``,
		`TRUNCATE notes_2`:                                  `notes.changed notes`,
	} {
		if strings.HasPrefix(sql, "UPDATE old_notes") {
			continue
		}
		if got := strings.Join(b.changes(func() { b.exec(sql) }), "|"); got != want {
			t.Errorf("%s: got %s, want %s", sql, got, want)
		}
	}
	b.exec(`CREATE TABLE notes_3 PARTITION OF notes_rest FOR VALUES IN (3)`)
	if err := b.drift(b.views); err == nil || !strings.Contains(err.Error(), "public.notes_3 is not watched") {
		t.Errorf("a new partition: %v", err)
	}
	if said := b.install(); !slices.Equal(said, []string{"public.notes_3 is watched for notes"}) {
		t.Errorf("Install said %q", said)
	}
}

func TestARoleWithoutRightsWritesAndPublishes(t *testing.T) {
	b := newBed(t)
	b.people()
	b.relay()
	role := fmt.Sprintf("app_%d", time.Now().UnixNano())
	b.exec(`CREATE ROLE ` + role + ` LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON users, books TO ` + role)
	t.Cleanup(func() {
		if _, err := b.conn.Exec(context.Background(), `DROP OWNED BY `+role+`; DROP ROLE `+role); err != nil {
			t.Error(err)
		}
	})
	app := b.connect()
	as := func(sql string) error { _, err := app.Exec(t.Context(), sql); return err }
	if err := as(`SET ROLE ` + role); err != nil {
		t.Fatal(err)
	}
	got := b.changes(func() {
		// A table of its own cannot come before ours in the triggers' search path.
		for _, sql := range []string{`CREATE TEMPORARY TABLE users (id uuid, clerk_user_id text)`, `UPDATE public.books SET title = 'by the app'`,
			`SELECT mythic_cache.publish('run.started', 'r1')`} {
			if err := as(sql); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
	})
	if want := []string{"books.changed user_books ann", "books.changed user_books bob", "run.started  r1"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	for _, sql := range []string{`SELECT * FROM mythic_cache.outbox`, `INSERT INTO mythic_cache.outbox (type) VALUES ('a.b')`, `SELECT mythic_cache.begin_epoch(1)`,
		`SELECT mythic_cache.capture('a.b', 'v', NULL, NULL, NULL, '{}')`, `SELECT setval('mythic_cache.awake_until', 1)`, `SELECT mythic_cache.ring()`} {
		if err := as(sql); err == nil {
			t.Errorf("the app may %s", sql)
		}
	}
}

func TestABrokenMappingFencesItsViewAndFailsNothing(t *testing.T) {
	b := newBed(t)
	b.people()
	b.relay()
	b.exec(`ALTER TABLE users RENAME COLUMN clerk_user_id TO clerk_id`)
	got := b.changes(func() {
		b.exec(`UPDATE books SET title = 'still written' WHERE run_id = 'ann1'`)
		b.exec(`UPDATE users SET email = 'still written' WHERE clerk_id = 'bob'`)
	})
	if want := []string{"books.changed user_books", "users.changed run_status run-bob", "users.changed user_books"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if n := one[int](b, `SELECT count(*) FROM books WHERE title = 'still written'`); n != 1 {
		t.Error("the app's statement was not carried out")
	}
	if err := b.drift(b.views); err == nil || !strings.Contains(err.Error(), "clerk_user_id") {
		t.Errorf("Drift says %v", err)
	}
	b.exec(`ALTER TABLE users RENAME COLUMN clerk_id TO clerk_user_id`)
	if err := b.drift(b.views); err != nil {
		t.Errorf("mended: %v", err)
	}
	if got := b.changes(func() { b.exec(`UPDATE books SET title = 'x' WHERE run_id = 'ann1'`) }); !slices.Equal(got, []string{"books.changed user_books ann"}) {
		t.Errorf("mended: got %q", got)
	}
}

// What the app itself is to hear must not be swallowed with a mapping's mistakes.
func TestCancellationStaysTheApps(t *testing.T) {
	b := newBed(t)
	b.people()
	other := b.connect()
	if _, err := other.Exec(t.Context(), `BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	_, err := b.conn.Exec(t.Context(), `SET statement_timeout = '50ms'; UPDATE books SET title = 'x'`)
	if err == nil || !strings.Contains(err.Error(), "57014") {
		t.Errorf("got %v", err)
	}
	// The app's own bound on locks, though, only makes the keys unknown.
	b.exec(`SET statement_timeout = 0; SET lock_timeout = '50ms'`)
	b.exec(`UPDATE books SET title = 'x'`)
	if why := one[string](b, `SELECT data->>'broken' FROM mythic_cache.outbox ORDER BY xid DESC, id DESC LIMIT 1`); !strings.Contains(why, "lock") {
		t.Errorf("why: %q", why)
	}
}

// The anomaly: a book changes beside an uncommitted change of its user's key. The
// book's transaction cannot know the new key, and the other has long mapped its own.
func TestJoinedMappingsRunTwice(t *testing.T) {
	for _, second := range []bool{true, false} {
		t.Run(fmt.Sprintf("second run %v", second), func(t *testing.T) {
			b := newBed(t)
			b.people()
			b.exec(`TRUNCATE mythic_cache.outbox`)
			other := b.connect()
			step := func(conn *pgx.Conn, sql string) {
				t.Helper()
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			step(other, `BEGIN; UPDATE users SET clerk_user_id = 'anna' WHERE clerk_user_id = 'ann'`)
			step(b.conn, `BEGIN; UPDATE books SET title = 'new' WHERE run_id = 'ann1'`)
			step(other, `COMMIT`)
			step(b.conn, `COMMIT`)
			if !second {
				b.exec(`UPDATE mythic_cache.outbox SET joins = NULL WHERE type = 'books.changed'`)
			}
			b.relay()
			b.sync()
			var keys []string
			for _, e := range b.entries() {
				if e.Type == "books.changed" {
					keys = append(keys, e.Subject)
				}
			}
			slices.Sort(keys)
			if want := []string{"ann", "anna"}; slices.Equal(keys, want) != second {
				t.Errorf("second run %v: keys %q", second, keys)
			}
		})
	}
}

// The same over a many-to-many table, where no row lock could help.
func TestJoinedMappingsOverALinkTable(t *testing.T) {
	b := newBed(t)
	b.exec(`CREATE TABLE tags (id int PRIMARY KEY, name text); CREATE TABLE shelves (key text, tag int);
		INSERT INTO tags VALUES (1, 'a'); INSERT INTO shelves VALUES ('old', 1)`)
	b.views = parse(t, `views: {shelf: {key: [key], ttl: 1m, load: "SELECT to_json(count(*)) FROM shelves s JOIN tags t ON t.id = s.tag WHERE s.key = $1",
		tables: {tags: "SELECT s.key FROM changed c JOIN shelves s ON s.tag = c.id", shelves: "SELECT key FROM changed"}}}`)
	b.installQuietly()
	other := b.connect()
	b.exec(`BEGIN; UPDATE tags SET name = 'b'`)
	if _, err := other.Exec(t.Context(), `INSERT INTO shelves VALUES ('new', 1)`); err != nil {
		t.Fatal(err)
	}
	b.exec(`COMMIT`)
	b.relay()
	b.sync()
	var keys []string
	for _, e := range b.entries() {
		if e.Type == "tags.changed" {
			keys = append(keys, e.Subject)
		}
	}
	if slices.Sort(keys); !slices.Equal(keys, []string{"new", "old"}) {
		t.Errorf("keys %q", keys)
	}
}

func TestTwoPhaseCommitWorksWhereItIsEnabled(t *testing.T) {
	t.Parallel()
	b := newBedOn(t, testserver.NewPostgres(t, map[string]string{"max_prepared_transactions": "5"}), mythic(t))
	b.people()
	b.relay()
	b.sync()
	got := b.changes(func() {
		b.exec(`BEGIN`)
		b.exec(`UPDATE books SET title = 'x' WHERE run_id = 'ann1'`)
		b.exec(`PREPARE TRANSACTION 'p'`)
		b.exec(`UPDATE books SET title = 'x' WHERE run_id = 'bob1'`)
		b.sync()
		b.exec(`COMMIT PREPARED 'p'`)
	})
	if want := []string{"books.changed user_books ann", "books.changed user_books bob"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
