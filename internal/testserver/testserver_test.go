package testserver_test

import (
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
	pg.Kill()
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
