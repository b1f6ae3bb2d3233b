package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
)

// runCommandLine runs a command in this process, with nothing but the given settings.
func runCommandLine(t *testing.T, settings map[string]string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	environ := make([]string, 0, len(settings))
	for name, value := range settings {
		environ = append(environ, name+"="+value)
	}
	err := run(t.Context(), args, environ, &out, &out)
	return out.String(), err
}

// A wrong setting stops the program at start with a sentence that names it, and
// no secret is in the sentence.
func TestWrongSettingsAreNamed(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]string{
		"DATABASE_URL": "postgres://u:hunter2@host:notaport/db", "DATABASE_LISTEN_URL": "postgres://u:hunter2@h:x/db",
		"REDIS_URL": "http://:hunter2@localhost", "HTTP_ADDR": "8001", "RUN_STATUS_TTL": "soon", "USER_BOOKS_TTL": "-5",
		"REDIS_CACHE_TTL": "0", "REDIS_SESSION_TTL": "1.5", "STALE_FOR": "x", "OUTBOX_RETENTION": "1m", "OUTBOX_WARN_SIZE": "1 lot", "VIEWS_FILE": "/nowhere/views.yaml",
		"CACHE_PREFIX": "a b", "LOG_LEVEL": "loud", "LOG_FORMAT": "xml", "AUTH_MODE": "password", "AUTH_JWKS": "ftp://:hunter2@example.com/jwks", "AUTH_LEEWAY": "1h",
		"RATE_LIMITS": "default=many", "AUDIT_RATE": "NaN", "LLM_BASE_URL": "ftp://:hunter2@model", "AI_CACHE_KEY": "hunter2",
	} {
		settings := map[string]string{
			"DATABASE_URL": "postgres://localhost/x", "HTTP_ADDR": "127.0.0.1:0", "AUTH_JWT_SECRET": jwtSecret,
		}
		settings[name] = wrong
		_, err := runCommandLine(t, settings, "run")
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: the error does not name it: %v", name, wrong, err)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: a secret is in the error: %v", name, err)
		}
	}
	for _, tooLong := range []string{"9999999999", "9999999999999999999", "2000000h"} {
		if _, err := runCommandLine(t, map[string]string{"STALE_FOR": tooLong}, "verify"); err == nil || !strings.Contains(err.Error(), "STALE_FOR") {
			t.Errorf("STALE_FOR=%s: %v", tooLong, err)
		}
	}
	if _, err := runCommandLine(t, map[string]string{"DATABASE_URL": "postgres://localhost/x"}, "run", "--roles="); err == nil || !strings.Contains(err.Error(), "--roles") {
		t.Errorf("no role at all: %v", err)
	}
	if _, err := runCommandLine(t, map[string]string{"REDIS_URL": "redis://a:1?addr=b:2"}, "verify"); err == nil || !strings.Contains(err.Error(), "Cluster") {
		t.Errorf("a cluster's URL: %v", err)
	}
	_, err := runCommandLine(t, map[string]string{"LOG_LEVEL": "loud", "RUN_STATUS_TTL": "soon"}, "doctor")
	if err == nil || !strings.Contains(err.Error(), "LOG_LEVEL") || !strings.Contains(err.Error(), "RUN_STATUS_TTL") {
		t.Errorf("two wrong settings are not both named: %v", err)
	}
}

func TestSizesAreReadAndWritten(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]size{
		"0": 0, "17": 17, "17B": 17, "2kB": 2000, "2KiB": 2048, "3MiB": 3 << 20, "1GiB": 1 << 30, "2GB": 2e9, "1TiB": 1 << 40, "7TB": 7e12,
	} {
		var got size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1.5GiB", "1 GiB", "1GIB", "1i", "99999999TiB", "99999999999999999999"} {
		var got size
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
	for bytes, want := range map[size]string{0: "0 bytes", 1023: "1023 bytes", 1 << 10: "1.0 KiB", 1 << 30: "1.0 GiB", 3 << 19: "1.5 MiB"} {
		if got := bytes.String(); got != want {
			t.Errorf("%d is written %s", int64(bytes), got)
		}
	}
}

func TestAWrongViewsFileIsRefusedByLine(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "views.yaml")
	if err := os.WriteFile(file, []byte("views:\n  books:\n    key: [id]\n    on_change: explode\n    load: SELECT 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := runCommandLine(t, map[string]string{"VIEWS_FILE": file, "DATABASE_URL": "postgres://localhost/x"}, "run")
	if err == nil || !strings.Contains(err.Error(), file+":4:") || !strings.Contains(err.Error(), "explode") {
		t.Errorf("the error does not say where and what: %v", err)
	}
}

// The grants that doctor names are those that the configured views need.
func TestDoctorNamesTheTablesOfTheViews(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "views.yaml")
	views := "views:\n  orders: {key: [no], load: 'SELECT to_json(total) FROM shop.orders WHERE no = $1', tables: {shop.orders: SELECT no FROM changed, stock: SELECT no FROM changed}}\n"
	if err := os.WriteFile(file, []byte(views), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := runCommandLine(t, map[string]string{
		"VIEWS_FILE": file, "DATABASE_URL": "postgres://127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1",
	}, "doctor")
	for _, want := range []string{"GRANT USAGE ON SCHEMA shop TO", "GRANT SELECT ON shop.orders, stock TO"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "processing_sessions") {
		t.Errorf("tables of other views are named:\n%s", out)
	}
}

// The operator's commands, against a running system.
func TestCommands(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("ann", "bob")
	s.cached("ann", "bob")
	contains := func(said string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(said, want) {
				t.Errorf("%q is not in:\n%s", want, said)
			}
		}
	}
	contains(s.command("version"), "mythic-cache")
	contains(s.command("migrate", "status"), "applied", "match")
	contains(s.command("doctor"), "PostgreSQL", "epoch", "LISTEN and NOTIFY work", "GRANT")
	contains(s.command("inspect", "user_books", "ann"), "mythic:user_books:{ann}", "HIT", "version")
	contains(s.command("verify", "--all"), `"wrong": 0`)
	contains(s.command("dlq", "list"), "no dead letters")

	contains(s.command("purge", "user_books", "ann"), "1 dropped")
	contains(s.command("inspect", "user_books", "ann"), "fence")
	s.cached("ann")
	contains(s.command("purge", "--user", "bob"), "1 dropped")
	s.cached("bob")
	s.command("purge", "--view", "user_books")
	contains(s.command("inspect", "user_books", "bob"), "fence")
	if out, err := s.try("purge"); err == nil {
		t.Errorf("purge of nothing: %s", out)
	}
	if out, err := s.try("inspect", "no_such_view", "x"); err == nil || !strings.Contains(out, "no_such_view") {
		t.Errorf("inspect of an unknown view: %v %s", err, out)
	}

	before := one[int64](s, `SELECT epoch FROM mythic_cache.epoch`)
	s.command("epoch", "bump")
	if after := one[int64](s, `SELECT epoch FROM mythic_cache.epoch`); after <= before {
		t.Errorf("epoch %d after %d", after, before)
	}
	s.cached("ann", "bob")
	s.exec(`UPDATE books SET title = 'in the new epoch' WHERE run_id = 'ann1'`)
	s.fresh("ann")
}

// verify finds a value that somebody altered behind our back. (The auditor would, too,
// and mend it before.)
func TestVerifyFindsAnAlteredValue(t *testing.T) {
	t.Parallel()
	s := newSystem(t, map[string]string{"AUDIT_RATE": "0"})
	s.people("ann")
	testserver.Eventually(t, "found", func() error { // an event of ann's that comes late takes the entry away
		s.cached("ann")
		s.alter("mythic:user_books:{ann}", "Book 1", "Bock 1")
		out, err := s.try("verify", "--all")
		if err == nil || !strings.Contains(out, `"wrong": 1`) || !strings.Contains(out, `"ann"`) {
			return errors.Join(err, fmt.Errorf("verify says %s", out))
		}
		return nil
	})
}

// alter changes what an entry says, as nobody may but the workers.
func (s *system) alter(name, from, to string) {
	s.t.Helper()
	value, err := s.client.Get(s.t.Context(), name).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.client.SetArgs(s.t.Context(), name, strings.Replace(value, from, to, 1), redis.SetArgs{KeepTTL: true}).Err(); err != nil {
		s.t.Fatal(err)
	}
}

// Dead letters are listed, shown, replayed and dropped.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	// A run event whose data is no object can never be folded.
	s.exec(`SELECT mythic_cache.publish('run.progress', 'RUN-DEAD', '"no object"')`)
	dead := func(want int64) {
		t.Helper()
		testserver.Eventually(t, "dead letters", func() error {
			if n, err := s.client.XLen(t.Context(), "mythic:{stream}:dead").Result(); err != nil || n != want {
				return fmt.Errorf("%d dead letters, %w", n, err)
			}
			return nil
		})
	}
	dead(1)
	testserver.Eventually(t, "dead letter measured", func() error {
		if metrics := string(s.get("/metrics", "").body); !strings.Contains(metrics, `mythic_cache_stream_dead_letters{group="precompute",topic="run"} 1`) {
			return errors.New("not yet")
		}
		return nil
	})
	if ready := string(s.get("/readyz", adminToken).body); !strings.Contains(ready, `"group precompute"`) {
		t.Errorf("readyz says nothing of the groups: %s", ready)
	}
	list := s.command("dlq", "list", "--topic", "run")
	if !strings.Contains(list, "run.progress") || !strings.Contains(list, "precompute") {
		t.Errorf("dlq list: %s", list)
	}
	if none := s.command("dlq", "list", "--type", "ai.requested"); !strings.Contains(none, "no dead letters") {
		t.Errorf("dlq list of another type: %s", none)
	}
	id := strings.Fields(strings.Split(list, "\n")[1])[0]
	var shown struct{ Fields map[string]string }
	if err := json.Unmarshal([]byte(s.command("dlq", "show", id)), &shown); err != nil || shown.Fields["subject"] != "RUN-DEAD" {
		t.Errorf("dlq show: %v %v", shown, err)
	}
	if said := s.command("dlq", "replay", id); !strings.Contains(said, "1 replayed") {
		t.Errorf("dlq replay: %s", said)
	}
	dead(1) // it failed again
	if said := s.command("dlq", "drop", "--all"); !strings.Contains(said, "1 dropped") {
		t.Errorf("dlq drop: %s", said)
	}
	dead(0)
}

// migrate down takes away all that is ours and nothing of the app's; demo load
// and migrate up may come in either order and again.
func TestMigrateAndDemoInAnyOrder(t *testing.T) {
	t.Parallel()
	s := &system{t: t, server: postgres, database: postgres.Database(t), redis: testserver.NewRedis(t), args: []string{"run"}}
	s.client, s.conn = s.redis.Client(t), s.connect()
	triggers := func() int {
		return one[int](s, `SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT tgisinternal AND c.relname IN ('users', 'books', 'processing_sessions')`)
	}
	if out, err := s.try("migrate", "status"); err == nil || !strings.Contains(out, "missing") || !strings.Contains(out, "migrate up") || strings.Contains(out, "SQLSTATE") {
		t.Errorf("migrate status of nothing: %v\n%s", err, out)
	}
	s.command("migrate", "up")
	s.command("demo", "load")
	installed := triggers()
	if installed == 0 {
		t.Fatal("demo load after migrate up leaves its tables unwatched")
	}
	users := one[int](s, `SELECT count(*) FROM users`)
	s.command("demo", "load")
	s.command("migrate", "up")
	if n := one[int](s, `SELECT count(*) FROM users`); n != users || users < 100 {
		t.Errorf("%d users after loading twice, %d after once", n, users)
	}
	s.command("migrate", "down")
	if n := triggers(); n != 0 {
		t.Errorf("%d triggers are left", n)
	}
	if one[bool](s, `SELECT to_regnamespace('mythic_cache') IS NOT NULL`) {
		t.Error("the schema is left")
	}
	if n := one[int](s, `SELECT count(*) FROM users`); n != users {
		t.Errorf("migrate down changed the app's rows: %d users", n)
	}
	s.exec(`UPDATE books SET title = 'unwatched'`)

	// run alone migrates nothing: it says what is missing and waits for it.
	s.start()
	testserver.Eventually(t, "told what is missing", func() error {
		a := s.request(http.MethodGet, "/readyz", adminToken, nil, nil)
		if a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "migrate up") {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
	s.command("migrate", "up")
	s.awaitReady()
	if n := triggers(); n != installed {
		t.Errorf("%d triggers, %d at first", n, installed)
	}
	s.people("ann")
	s.cached("ann")
	s.exec(`UPDATE books SET title = 'watched again' WHERE run_id = 'ann1'`)
	s.fresh("ann")
	s.stop()
}
