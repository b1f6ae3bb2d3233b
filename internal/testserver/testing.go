package testserver

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// Main runs a package's tests beside one PostgreSQL cluster, which it stops
// afterwards. Use it as TestMain:
//
//	var postgres *testserver.Postgres
//
//	func TestMain(m *testing.M) { testserver.Main(m, &postgres) }
func Main(m *testing.M, shared **Postgres) {
	os.Exit(runMain(m, shared)) //nolint:revive // deep-exit: it stands in for TestMain
}

func runMain(m *testing.M, shared **Postgres) int {
	dir, err := tempDir()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	p, err := StartPostgres(context.Background(), PostgresOptions{Dir: filepath.Join(dir, "data")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer p.Stop()
	*shared = p
	return m.Run()
}

// NewPostgres starts a cluster of the test's own, for tests that crash it.
func NewPostgres(t testing.TB, settings map[string]string) *Postgres {
	t.Helper()
	dir, err := tempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p, err := StartPostgres(t.Context(), PostgresOptions{Dir: filepath.Join(dir, "data"), Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// Database makes an empty database of the test's own, which is dropped after
// the test, and returns its connection string.
func (p *Postgres) Database(t testing.TB) string {
	t.Helper()
	name := "t_" + strings.ToLower(rand.Text()[:16])
	p.admin(t, "CREATE DATABASE "+name)
	t.Cleanup(func() { p.admin(t, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	return p.URL(name)
}

func (p *Postgres) admin(t testing.TB, sql string) {
	t.Helper()
	// Not the test's own context: that one has ended when cleanups run.
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// NewRedis starts a server of the test's own.
func NewRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	r, err := StartRedis(t.Context(), RedisOptions{Dir: t.TempDir(), Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}

// Client returns a client of the server, which is closed after the test.
func (r *Redis) Client(t testing.TB) *redis.Client {
	t.Helper()
	opt, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(opt)
	t.Cleanup(func() { client.Close() })
	return client
}

// Eventually waits until check returns nil, looking again every few
// milliseconds, and fails the test with its last error after a minute. It is
// for states that nobody announces; wait on a signal where there is one.
func Eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
