package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"mythiccache/internal/testserver"
)

// metric returns the value of a metric, as it is written with its labels; 0 where
// there is none.
func (s *system) metric(name string) float64 {
	s.t.Helper()
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (.+)$`).FindSubmatch(s.get("/metrics", "").body)
	if found == nil {
		return 0
	}
	value, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return value
}

// heartbeats waits until the leading relay has had some more.
func (s *system) heartbeats(n int) {
	s.t.Helper()
	last := ""
	for range n + 1 { // the first may be under way
		testserver.Eventually(s.t, "a heartbeat", func() error {
			now := one[string](s, `SELECT coalesce(max(query_start)::text, '') FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'mythic-cache relay' AND query LIKE '%current_epoch%'`)
			if now == "" || now == last {
				return errors.New("none")
			}
			last = now
			return nil
		})
	}
}

// quiet demands that no view is fenced any more.
func (s *system) quiet() {
	s.t.Helper()
	fences := func() float64 {
		return s.metric(`mythic_cache_relay_view_fences_total{view="user_books"}`) + s.metric(`mythic_cache_relay_view_fences_total{view="notes"}`)
	}
	testserver.Eventually(s.t, "quiet", func() error { // what was mended is fenced once more
		before := fences()
		s.heartbeats(3)
		if after := fences(); after != before {
			return fmt.Errorf("fenced %v times more", after-before)
		}
		return nil
	})
}

// A table is swapped under its cached entries, and triggers and entries belong to the
// old one. Answers stay right, whoever can know is told, and `migrate up` mends it.
func TestASwappedTableIsServedRight(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("ann", "bob")
	s.cached("ann", "bob")
	s.exec(`BEGIN; CREATE TABLE books_new (LIKE books INCLUDING ALL); INSERT INTO books_new SELECT * FROM books;
		UPDATE books_new SET title = 'swapped' WHERE run_id = 'ann1';
		ALTER TABLE books RENAME TO books_old; ALTER TABLE books_new RENAME TO books; COMMIT`)
	s.fresh("ann", "bob")
	for n := range 3 {
		s.exec(`UPDATE books SET title = $1 WHERE run_id = 'bob1'`, fmt.Sprintf("unseen %d", n))
		s.fresh("ann", "bob")
	}
	const drift = "public.books is not watched"
	testserver.Eventually(t, "not ready", func() error {
		a := s.request(http.MethodGet, "/readyz", adminToken, nil, nil)
		if a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), drift) || !strings.Contains(string(a.body), "migrate up") {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
	if s.metric(`mythic_cache_relay_drifted_views{view="user_books"}`) != 1 || s.metric(`mythic_cache_relay_drifted_views{view="run_status"}`) != 0 {
		t.Error("the metric does not name user_books alone")
	}
	if n := strings.Count(s.log.String(), "changes may go unnoticed"); n != 1 {
		t.Errorf("the relay told it %d times", n)
	}
	// Nor does it wait, when it is started again, until somebody mends that.
	s.stop()
	s.exec(`UPDATE books SET title = 'while nobody ran' WHERE run_id = 'bob1'`)
	s.start()
	s.fresh("ann", "bob")
	s.exec(`UPDATE books SET title = 'and again' WHERE run_id = 'bob1'`)
	s.fresh("ann", "bob")
	if out, err := s.try("doctor"); err == nil || !strings.Contains(out, "MEND  "+drift) || !strings.Contains(out, "invalidates all of user_books each second") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	s.command("migrate", "up")
	s.awaitReady()
	s.quiet()
	s.cached("ann", "bob")
	s.exec(`UPDATE books SET title = 'seen' WHERE run_id = 'ann1'`)
	s.fresh("ann", "bob")
	// What is watched in vain is no reason not to be ready, nor to start.
	s.exec(`CREATE TABLE books_heir () INHERITS (books)`)
	s.command("migrate", "up")
	s.awaitReady()
	s.exec(`DROP TABLE books_heir`)
	s.quiet()
	if a := s.get("/readyz", ""); a.status != http.StatusOK {
		t.Errorf("readyz %d %s", a.status, a.body)
	}
	if out := s.command("doctor"); !strings.Contains(out, "note  public.books_heir is watched, but no view maps it") {
		t.Errorf("doctor:\n%s", out)
	}
	s.stop()
	s.start()
	s.awaitReady()
	s.cached("ann", "bob")
}

// Partitions come each day and go again. With --migrate they are watched without a
// word of anybody's.
func TestNewPartitionsAreWatchedByThemselves(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "views.yaml")
	const views = `views: {notes: {key: [owner], ttl: 30m, tables: {notes: SELECT owner FROM changed}, http: {path: /notes, key: caller},
		load: "SELECT json_build_object('words', coalesce(sum(words), 0)) FROM notes WHERE owner = $1"}}`
	if err := os.WriteFile(file, []byte(views), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &system{
		t: t, server: postgres, database: postgres.Database(t), redis: testserver.NewRedis(t),
		args: []string{"run", "--migrate"}, settings: map[string]string{"VIEWS_FILE": file},
	}
	s.client, s.conn = s.redis.Client(t), s.connect()
	s.exec(`CREATE TABLE notes (owner text, words int, day int) PARTITION BY LIST (day); CREATE TABLE notes_0 PARTITION OF notes FOR VALUES IN (0)`)
	s.start()
	s.awaitReady()
	right := func() {
		t.Helper()
		testserver.Eventually(t, "right, and from the cache", func() error {
			a := s.get("/notes", token("ann"))
			want := fmt.Sprintf(`{"words":%d}`, one[int](s, `SELECT coalesce(sum(words), 0) FROM notes WHERE owner = 'ann'`))
			if string(a.body) != want || a.header.Get("X-Cache") != "HIT" {
				return fmt.Errorf("%s %s, not %s", a.header.Get("X-Cache"), a.body, want)
			}
			return nil
		})
	}
	s.exec(`INSERT INTO notes_0 VALUES ('ann', 1, 0)`)
	right()
	for day := 1; day <= 2; day++ {
		s.exec(fmt.Sprintf(`CREATE TABLE notes_%[1]d PARTITION OF notes FOR VALUES IN (%[1]d); INSERT INTO notes_%[1]d VALUES ('ann', 10, %[1]d)`, day))
		right()
		testserver.Eventually(t, "the partition is watched", func() error {
			if n := one[int](s, `SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass($1) AND tgname LIKE 'mythic%'`, fmt.Sprintf("notes_%d", day)); n != 4 {
				return fmt.Errorf("%d triggers", n)
			}
			return nil
		})
		s.exec(fmt.Sprintf(`INSERT INTO notes_%[1]d VALUES ('ann', 100, %[1]d)`, day))
		right()
	}
	s.exec(`DROP TABLE notes_1`)
	right()
	testserver.Eventually(t, "the dropped one is forgotten", func() error {
		if n := one[int](s, `SELECT count(*) FROM mythic_cache.triggers`); n != 3 {
			return fmt.Errorf("%d tables are watched", n)
		}
		return nil
	})
	s.awaitReady()
	s.quiet()
	s.stop()
}
