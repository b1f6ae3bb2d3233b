package writers_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/bench/writers"
	"mythiccache/internal/testserver"
)

var postgres *testserver.Postgres

func TestMain(m *testing.M) { testserver.Main(m, &postgres) }

// A write that hangs holds up no other, each is made once and not before it is due, and
// no connection is left.
func TestALateCommitHoldsUpNoOther(t *testing.T) {
	const writes, rate = 50, 200
	url := postgres.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	if _, err := conn.Exec(t.Context(), "CREATE TABLE written (n integer PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	const insert = "INSERT INTO written VALUES ($1)"
	last := make(chan struct{})
	wrong := errors.New("the write fails")
	app := writers.App{
		Connections: 3, Statement: insert,
		Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) },
		Write: func(ctx context.Context, conn *pgx.Conn, n int) error {
			if n == 0 {
				select {
				case <-last:
				case <-time.After(time.Minute):
					t.Error("the first write held up the last")
				}
			}
			if _, err := conn.Exec(ctx, insert, n); err != nil {
				return err
			}
			switch n {
			case writes / 2:
				return wrong // and ends its connection; one is left
			case writes - 1:
				close(last)
			}
			return nil
		},
	}
	begun := time.Now()
	if err := app.Run(t.Context(), writes, rate); !errors.Is(err, wrong) {
		t.Errorf("%v", err)
	}
	if took := time.Since(begun); took < (writes-1)*time.Second/rate {
		t.Errorf("%d writes at %d a second took %s", writes, rate, took)
	}
	var made int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM written").Scan(&made); err != nil || made != writes {
		t.Errorf("%d of %d writes were made, %v", made, writes, err)
	}
	testserver.Eventually(t, "no connection is left", func() error {
		var open int
		err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").Scan(&open)
		if err == nil && open > 0 {
			err = errors.New("some are")
		}
		return err
	})
}

func TestAnAppThatCannotConnectSaysSo(t *testing.T) {
	wrong := errors.New("nobody listens")
	app := writers.App{
		Connections: 2,
		Connect:     func(context.Context) (*pgx.Conn, error) { return nil, wrong },
		Write:       func(context.Context, *pgx.Conn, int) error { t.Error("a write without a connection"); return nil },
	}
	if err := app.Run(t.Context(), 3, 1000); !errors.Is(err, wrong) {
		t.Errorf("%v", err)
	}
}
