package consumers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The ways a transaction may see the database.
const (
	readCommitted  = "READ COMMITTED"
	repeatableRead = "REPEATABLE READ"
)

// query is one statement and what reads its rows.
type query struct {
	sql  string
	args []any
	scan func(pgx.Rows) error
}

// read runs statements in one read-only transaction and one round trip. Its
// settings are the transaction's own, since a pgbouncer may stand between and
// the session belong to somebody else next: times are told in UTC, so that equal
// rows give equal bytes, and each statement ends in time.
func (l *Loader) read(ctx context.Context, queries ...query) error {
	batch := &pgx.Batch{}
	batch.Queue("BEGIN ISOLATION LEVEL " + readCommitted + " READ ONLY")
	batch.Queue("SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true), set_config('statement_timeout', $1, true)",
		strconv.FormatInt(max(l.timeout.Milliseconds(), 1), 10))
	return l.within(ctx, batch, queries)
}

// within runs statements in the transaction that a batch begins, and commits it.
func (l *Loader) within(ctx context.Context, batch *pgx.Batch, queries []query) error {
	ctx, cancel := context.WithTimeout(ctx, l.Deadline())
	defer cancel()
	conn, err := l.pool.Acquire(ctx)
	if err != nil {
		return reached(ctx, fmt.Errorf("reach PostgreSQL: %w", err), true)
	}
	defer conn.Release()
	for _, q := range queries {
		batch.Queue(q.sql, q.args...).Query(q.scan)
	}
	batch.Queue("COMMIT")
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		rollBack(ctx, conn)
		return reached(ctx, err, false)
	}
	return nil
}

// rollBack ends a transaction whose batch stopped at an error, so that the
// session can be used again; a session that cannot is closed on release.
func rollBack(ctx context.Context, conn *pgxpool.Conn) {
	if !conn.Conn().IsClosed() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = conn.Exec(ctx, "ROLLBACK") // the pool looks at the session's state anyway
	}
}

// reached wraps ErrPaused around the errors of a server that is away. connecting
// says that there was no session yet: then a deadline means the same.
func reached(ctx context.Context, err error, connecting bool) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		if passing(server) {
			return fmt.Errorf("%w: %w", ErrPaused, err)
		}
		return err
	}
	if connecting || networkFailed(err) {
		return fmt.Errorf("%w: %w", ErrPaused, err)
	}
	return err
}

// passing reports whether the server's complaint is about its own state: it
// starts, ends, is full or a standby, or the schema is not there yet.
func passing(e *pgconn.PgError) bool {
	switch e.Code {
	case "42P01", "42883", "3F000", "3D000", // no such table, function, schema, database: before the migrations
		"25006", // read-only: a standby, to whoever writes
		"53300", // too many connections
		"55000": // a standby, to whoever asks for what only a primary has
		return true
	}
	switch e.Code[:min(2, len(e.Code))] {
	case "08", "57", "58", "53": // connection, operator, system, resources
		return e.Code != pgQueryCanceled
	}
	return false
}

const pgQueryCanceled = "57014"

// networkFailed reports whether the session broke, as opposed to the statement
// or to what reads its rows.
func networkFailed(err error) bool {
	var network interface{ Timeout() bool }
	return errors.As(err, &network) && !errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		pgconn.SafeToRetry(err) || strings.Contains(err.Error(), "conn closed")
}

// badKey reports whether the server could not read a part of the key as a value
// of the type that the load compares it with. Only a parameter's own error says
// where it is: a bad value in a row has no such place.
func badKey(err error) bool {
	var server *pgconn.PgError
	if !errors.As(err, &server) || !strings.Contains(server.Where, "$") {
		return false
	}
	switch server.Code {
	case "22P02", "22003", "22007", "22008", "22021":
		return true
	}
	return false
}

// sqlState returns the server's code for an error, "" for any other error.
func sqlState(err error) string {
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		return server.Code
	}
	return ""
}
