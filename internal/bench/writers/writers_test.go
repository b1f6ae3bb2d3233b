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
	const connections, writes, rate = 3, 50, 200
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
	opened := make(chan *pgx.Conn, connections)
	app := writers.App{
		Connections: connections, Statement: insert,
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			conn, err := pgx.Connect(ctx, url)
			opened <- conn
			return conn, err
		},
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
	close(opened)
	if took := time.Since(begun); took < (writes-1)*time.Second/rate {
		t.Errorf("%d writes at %d a second took %s", writes, rate, took)
	}
	var made int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM written").Scan(&made); err != nil || made != writes {
		t.Errorf("%d of %d writes were made, %v", made, writes, err)
	}
	for conn := range opened {
		if !conn.IsClosed() {
			t.Error("a connection is open")
		}
	}
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
