package testserver_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

var postgres *testserver.Postgres

func TestMain(m *testing.M) { testserver.Main(m, &postgres) }

func TestDatabasesAreApart(t *testing.T) {
	a, err := pgx.Connect(t.Context(), postgres.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close(t.Context())
	if _, err := a.Exec(t.Context(), "CREATE TABLE here ()"); err != nil {
		t.Fatal(err)
	}
	b, err := pgx.Connect(t.Context(), postgres.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(t.Context())
	if _, err := b.Exec(t.Context(), "SELECT FROM here"); err == nil {
		t.Error("a table of one test's database is seen in another's")
	}
}

func TestKilledServersComeBack(t *testing.T) {
	pg := testserver.NewPostgres(t, nil)
	url := pg.Database(t)
	busy, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := busy.Exec(context.Background(), "SELECT count(*) FROM generate_series(1, 10000000000) a, generate_series(1, 10000000000) b")
		ended <- err
	}()
	testserver.Eventually(t, "a busy backend", func() error {
		other, err := pgx.Connect(t.Context(), url)
		if err != nil {
			return err
		}
		defer other.Close(t.Context())
		var running int
		err = other.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM gen%' AND state = 'active'").Scan(&running)
		if err != nil || running == 1 {
			return err
		}
		return errors.New("none")
	})
	pg.Kill()
	if err := <-ended; err == nil {
		t.Error("a backend survived Kill")
	}
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(t.Context())

	r := testserver.NewRedis(t, "--appendfsync", "always")
	if err := r.Client(t).Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	r.Kill()
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Client(t).Get(t.Context(), "k").Result(); err != nil || got != "v" {
		t.Errorf("after the restart: %q, %v", got, err)
	}
}

func TestTwoServersNeverShareAPort(t *testing.T) {
	first := testserver.NewRedis(t)
	_, err := testserver.StartRedis(t.Context(), testserver.RedisOptions{Dir: t.TempDir(), Port: first.Port})
	if err == nil {
		t.Error("a second server started on the port of the first")
	}
	_, err = testserver.StartPostgres(t.Context(), testserver.PostgresOptions{Dir: postgres.Dir() + "-second", Port: postgres.Port})
	if err == nil {
		t.Error("a second cluster started on the port of the first")
	}
}
