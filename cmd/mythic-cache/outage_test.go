package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"mythiccache/internal/testserver"
)

// shortLived are two views of one table, one of which is never served stale.
const shortLived = `
views:
  lenient:
    key: [id]
    ttl: 1s
    negative: 1s
    load: SELECT json_build_object('n', n) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed}
    events: {things.forgotten: subject}
    http: {path: '/lenient/{id}', key: id}
  strict:
    key: [id]
    ttl: 1s
    stale: false
    load: SELECT json_build_object('n', n) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed}
    http: {path: '/strict/{id}', key: id}
`

// While PostgreSQL is away, entries past their time are served as STALE, but not what
// was dropped meanwhile, nor that something is not there, nor what a view forbids.
func TestStaleWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "views.yaml")
	if err := os.WriteFile(file, []byte(shortLived), 0o600); err != nil {
		t.Fatal(err)
	}
	pg := testserver.NewPostgres(t, nil)
	s := &system{
		t: t, server: pg, database: pg.Database(t), redis: testserver.NewRedis(t),
		settings: map[string]string{"VIEWS_FILE": file, "RATE_LIMITS": "default=1000000/1m"}, args: []string{"run"},
	}
	s.client, s.conn = s.redis.Client(t), s.connect()
	s.exec(`CREATE TABLE things (id text PRIMARY KEY, n int)`)
	s.exec(`INSERT INTO things VALUES ('a', 1), ('b', 1)`)
	s.command("migrate", "up")
	s.start()
	s.awaitReady()
	for path, status := range map[string]int{"/lenient/a": 200, "/lenient/b": 200, "/lenient/none": 404, "/strict/a": 200} {
		s.becomes(path, status, "")
	}
	pg.Stop()
	s.becomes("/lenient/a", http.StatusOK, "STALE")
	s.becomes("/lenient/b", http.StatusOK, "STALE")
	s.add("things", "things.forgotten", "b", "")
	// Once they are gone, nothing brings them back, however often they are asked for.
	for _, path := range []string{"/lenient/b", "/lenient/none", "/strict/a"} {
		s.becomes(path, http.StatusServiceUnavailable, "")
	}
	for range 3 {
		for _, path := range []string{"/lenient/b", "/lenient/none", "/strict/a"} {
			if a := s.get(path, ""); a.status != http.StatusServiceUnavailable {
				t.Errorf("%s: %d %s %s", path, a.status, a.header.Get("X-Cache"), a.body)
			}
		}
		if a := s.get("/lenient/a", ""); a.header.Get("X-Cache") != "STALE" || string(a.body) != `{"n":1}` {
			t.Errorf("/lenient/a: %d %s %s", a.status, a.header.Get("X-Cache"), a.body)
		}
	}

	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.conn = s.connect()
	s.exec(`UPDATE things SET n = 2`)
	for _, path := range []string{"/lenient/a", "/lenient/b", "/strict/a"} {
		testserver.Eventually(t, "fresh again", func() error {
			if a := s.get(path, ""); string(a.body) != `{"n":2}` || a.header.Get("X-Cache") == "STALE" {
				return fmt.Errorf("%s: %d %s %s", path, a.status, a.header.Get("X-Cache"), a.body)
			}
			return nil
		})
	}
	s.becomes("/lenient/none", http.StatusNotFound, "")
}

// becomes waits until a path answers so; where mark is empty, with anything but STALE.
func (s *system) becomes(path string, status int, mark string) {
	s.t.Helper()
	testserver.Eventually(s.t, "the answer", func() error {
		a := s.get(path, "")
		got := a.header.Get("X-Cache")
		if a.status != status || mark != "" && got != mark || mark == "" && got == "STALE" {
			return fmt.Errorf("%s: %d %s %s", path, a.status, got, a.body)
		}
		return nil
	})
}
