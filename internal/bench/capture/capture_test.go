package capture

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/process"
	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

var postgres *testserver.Postgres

func TestMain(m *testing.M) { testserver.Main(m, &postgres) }

func TestDeadRowsAreCounted(t *testing.T) {
	ctx := t.Context()
	url := postgres.Database(t)
	conn, err := connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(ctx) })
	c := &contestant{name: "test", url: url, conn: conn}
	err = c.exec(ctx, "CREATE SCHEMA mythic_cache", "CREATE TABLE users ()",
		"CREATE TABLE mythic_cache.outbox (id integer, slot integer) PARTITION BY LIST (slot)",
		"CREATE TABLE mythic_cache.outbox_0 PARTITION OF mythic_cache.outbox FOR VALUES IN (0) WITH (autovacuum_enabled = off)",
		"CREATE TABLE mythic_cache.outbox_1 PARTITION OF mythic_cache.outbox FOR VALUES IN (1) WITH (autovacuum_enabled = off)",
		"CREATE TABLE mythic_cache.positions (id integer) WITH (autovacuum_enabled = off)",
		"INSERT INTO mythic_cache.outbox SELECT n, n % 2 FROM generate_series(1, 1000) AS n",
		"INSERT INTO mythic_cache.positions SELECT generate_series(1, 5)")
	if err != nil {
		t.Fatal(err)
	}
	err = c.holding(ctx, true, func() error {
		outbox, others, err := c.dead(ctx)
		if outbox != 0 || others != 0 {
			t.Errorf("%d and %d before anything is dead", outbox, others)
		}
		err = errors.Join(err, c.exec(ctx, "DELETE FROM mythic_cache.outbox WHERE id <= 300",
			"UPDATE mythic_cache.outbox SET id = -id WHERE id > 995", "DELETE FROM mythic_cache.positions WHERE id = 1"))
		if err != nil {
			return err
		}
		outbox, others, err = c.dead(ctx)
		if outbox != 305 || others != 1 {
			t.Errorf("%d dead rows in the outbox and %d elsewhere; want 305 and 1", outbox, others)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBareCarriesWhatCommits(t *testing.T) {
	ctx := t.Context()
	url := postgres.Database(t)
	server := testserver.NewRedis(t)
	conn, err := connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(ctx) })
	const tables = `CREATE TABLE users (id uuid PRIMARY KEY, clerk_user_id text); CREATE TABLE books (id uuid PRIMARY KEY, user_id uuid, title text);
		CREATE TABLE processing_sessions (run_id text, user_id uuid)`
	if _, err := conn.Exec(ctx, tables+";"+bareSQL); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	loop, stop := context.WithCancel(ctx)
	defer stop()
	go func() { done <- Bare(loop, url, server.URL()) }()
	c := &contestant{name: "bare", url: url, conn: conn, client: server.Client(t), markSeen: "0", mark: "SELECT bare.mark($1)", empty: "TRUNCATE bare.outbox"}
	c.keys = stream.NewKeys(barePrefix)
	if c.process, err = process.Start(filepath.Join(t.TempDir(), "log"), nil, "sleep", "600"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.process.Stop() }) // it ends by the signal, which is no success
	err = c.exec(ctx, "INSERT INTO users SELECT "+idOf("n")+", 'user_' || n FROM generate_series(1, 3) AS n",
		"INSERT INTO books SELECT "+idOf("n")+", "+idOf("1 + n % 2")+", '' FROM generate_series(1, 2500) AS n")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.caughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	if users, err := c.entries(ctx, "users"); err != nil || users != 3 {
		t.Errorf("%d entries of users, %v; want 3", users, err)
	}
	if books, err := c.entries(ctx, "books"); err != nil || books != 2 {
		t.Errorf("%d entries of books, %v; want one for each of the 2 users", books, err)
	}
	if err := c.carried(ctx); err != nil {
		t.Error(err)
	}
	if err := c.carried(ctx); err == nil {
		t.Error("a round that captured nothing passed")
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The writes of a follower that the baseline's outbox never shows are told.
func TestLostWritesAreTold(t *testing.T) {
	f := &follower{users: 3, writes: make([]write, 3), present: make([]atomic.Int64, 4)}
	for n := range f.writes {
		f.present[n+1].Store(int64(n) + 1)
		f.writes[n].took = time.Millisecond
		f.writes[n].committed.Store(int64(5 * time.Millisecond))
	}
	entry := func(user string) redis.XMessage { return redis.XMessage{Values: map[string]any{"subject": user}} }
	for user, at := range map[string]time.Duration{"user_1": 8 * time.Millisecond, "user_2": 4 * time.Millisecond} {
		if err := f.note(entry(user), int64(at)); err != nil {
			t.Fatal(err)
		}
		if err := f.note(entry(user), int64(time.Hour)); err != nil { // a second time is no news
			t.Fatal(err)
		}
	}
	want := followed{late: []float64{3, 0}, commit: []float64{1, 1, 1}, lost: 1}
	if got := f.came(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v; want %+v", got, want)
	}
	for _, user := range []string{"", "user_", "user_4", "user_0", "RUN1"} {
		if err := f.note(entry(user), 1); err == nil {
			t.Errorf("an entry of %q was taken for a write", user)
		}
	}
}

func TestStatementsAreCounted(t *testing.T) {
	const log = `{"timestamp":"2026-01-01 00:00:01.000 UTC","dbname":"ours","application_name":"relay","message":"execute s1: SELECT 1: one"}
{"timestamp":"2026-01-01 00:00:02.500 UTC","dbname":"ours","application_name":"relay","message":"execute s1: SELECT 1: one"}
{"timestamp":"2026-01-01 00:00:03.000 UTC","dbname":"ours","message":"statement: SET a = b"}
{"timestamp":"2026-01-01 00:00:03.000 UTC","dbname":"ours","application_name":"bench","message":"statement: SELECT 2"}
{"timestamp":"2026-01-01 00:00:03.000 UTC","dbname":"bare","application_name":"bare","message":"statement: SELECT 3"}
{"timestamp":"2026-01-01 00:00:03.000 UTC","dbname":"ours","message":"duration: 3 ms"}
{"timestamp":"2026-01-01 00:00:09.000 UTC","dbname":"ours","message":"statement: SELECT 4"}
`
	file := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(file, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 1, 1, 0, 0, 1, 0, time.UTC)
	got := map[string]int{}
	if err := countStatements(file, from, from.Add(8*time.Second), got); err != nil {
		t.Fatal(err)
	}
	if want := map[string]int{"SELECT 1: one": 2, "SET a = b": 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
}
