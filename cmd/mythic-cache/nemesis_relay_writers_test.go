package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mythiccache/cache/version"
)

// transaction is what its writer knows of it.
type transaction struct {
	number  int64
	fate    fate
	events  [][16]byte // ids of what it published
	changes []change
	xid     uint64
	before  string // a version that has not seen it
}

// change is of one key.
type change struct{ view, key string }

type fate int

const (
	rolledBack fate = iota
	committed
	unknown // the reply to COMMIT got lost
)

// never begins the subjects and keys of what is rolled back.
const never = "never-"

// How many rows a big transaction writes. The first writer's first is its three
// hundredth, the second's its six hundredth, and so on; from then on they are rarer.
const (
	bulk      = 5000
	muchFirst = 300
	muchEvery = 3000
)

// relayTables are the app's own, beside Mythic's: a row of witness for each
// transaction, in the transaction, tells its fate.
const relayTables = `CREATE TABLE witness (number bigint PRIMARY KEY);
	INSERT INTO users (clerk_user_id) SELECT 'reader' || n FROM generate_series(0, 19) n;
	INSERT INTO books (user_id, title) SELECT id, 'A book' FROM users;
	INSERT INTO processing_sessions (run_id, user_id) SELECT 'run' || n, (SELECT id FROM users LIMIT 1) FROM generate_series(0, 39) n;
	INSERT INTO processing_sessions (run_id) SELECT 'bulk' || n FROM generate_series(1, 5000) n`

// relayWriters load the database, and remember what they wrote.
type relayWriters struct {
	url  string
	gate sync.RWMutex // held for writing: all have come to the end of their transactions

	mu    sync.Mutex
	last  int64
	done  []*transaction
	wrong []error
}

// startRelayWriters has some writers go on until the test ends.
func startRelayWriters(t testing.TB, url string, seed uint64, count int) *relayWriters {
	t.Helper()
	w := &relayWriters{url: url}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range count {
		group.Go(func() {
			app := &app{writers: w, random: rand.New(rand.NewPCG(seed, uint64(i))), muchIn: (i + 1) * muchFirst}
			defer app.close()
			for ctx.Err() == nil {
				w.gate.RLock()
				app.write(context.WithoutCancel(ctx)) // its fate is known more often so
				w.gate.RUnlock()
			}
		})
	}
	t.Cleanup(func() { cancel(); group.Wait() })
	return w
}

// take returns the transactions since the last time, and what went wrong for the app.
func (w *relayWriters) take() ([]*transaction, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	done := w.done
	w.done = nil
	return done, errors.Join(w.wrong...)
}

func (w *relayWriters) number() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	return w.last
}

// settle notes a transaction, and an error that no fault of a server explains.
func (w *relayWriters) settle(t *transaction, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = append(w.done, t)
	var refused *pgconn.PgError
	// 40: conflicts among the writers; 57: the server goes down.
	if errors.As(err, &refused) && refused.Code[:2] != "40" && refused.Code[:2] != "57" {
		w.wrong = append(w.wrong, err)
	}
}

// app is one connection's writing.
type app struct {
	writers *relayWriters
	random  *rand.Rand
	conn    *pgx.Conn
	muchIn  int // transactions until a big one
}

func (a *app) close() {
	if a.conn != nil {
		a.conn.Close(context.Background())
	}
}

// write does one transaction of random length, order and end.
func (a *app) write(ctx context.Context) {
	levels := []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable}
	doomed := a.random.IntN(7) == 0
	a.transact(ctx, levels[a.random.IntN(len(levels))], doomed, func(tx pgx.Tx, t *transaction) error {
		if a.muchIn--; a.muchIn == 0 {
			a.muchIn = muchEvery
			return a.writeMuch(ctx, tx, t, doomed)
		}
		for range 1 + a.random.IntN(6) {
			if err := a.step(ctx, tx, t, doomed); err != nil {
				return err
			}
		}
		return nil
	})
}

// transact does one transaction and notes its fate.
func (a *app) transact(ctx context.Context, level pgx.TxIsoLevel, doomed bool, do func(pgx.Tx, *transaction) error) *transaction {
	if a.conn == nil || a.conn.IsClosed() {
		conn, err := pgx.Connect(ctx, a.writers.url)
		if err != nil {
			return &transaction{} // nobody is there: nothing was written
		}
		a.conn = conn
	}
	t := &transaction{number: a.writers.number()}
	a.writers.settle(t, a.attempt(ctx, t, level, doomed, do))
	return t
}

func (a *app) attempt(ctx context.Context, t *transaction, level pgx.TxIsoLevel, doomed bool, do func(pgx.Tx, *transaction) error) error {
	tx, err := a.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: level})
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if err := do(tx, t); err != nil {
		return err
	}
	if err := t.witness(ctx, tx); err != nil {
		return err
	}
	if doomed {
		return tx.Rollback(ctx)
	}
	err = tx.Commit(ctx)
	var refused *pgconn.PgError
	switch {
	case err == nil:
		t.fate = committed
	case errors.As(err, &refused) && refused.Code[:2] == "40":
	default:
		t.fate = unknown
	}
	return err
}

// witness leaves a row behind, and notes how things stand just before the commit.
// A snapshot leaves out its own transaction, which is put back among those in progress.
func (t *transaction) witness(ctx context.Context, tx pgx.Tx) error {
	var epoch int64
	var xid, text string
	const query = `WITH w AS (INSERT INTO witness VALUES ($1))
		SELECT coalesce(mythic_cache.current_epoch(), 0), pg_current_xact_id()::text, pg_current_snapshot()::text`
	if err := tx.QueryRow(ctx, query, t.number).Scan(&epoch, &xid, &text); err != nil {
		return err
	}
	snapshot, err := version.ParseSnapshot(uint64(epoch), text)
	if err != nil {
		return err
	}
	if t.xid, err = strconv.ParseUint(xid, 10, 64); err != nil {
		return err
	}
	if at, found := slices.BinarySearch(snapshot.Xip, t.xid); t.xid < snapshot.Xmax && !found {
		snapshot.Xip = slices.Insert(snapshot.Xip, at, t.xid)
	}
	t.before = snapshot.Version().String()
	return nil
}

// step is one thing that an app may do.
func (a *app) step(ctx context.Context, tx pgx.Tx, t *transaction, doomed bool) error {
	fresh := fmt.Sprintf("new%d-%d", t.number, a.random.IntN(1_000_000))
	if doomed {
		fresh = never + fresh
	}
	reader, run := fmt.Sprintf("reader%d", a.random.IntN(20)), fmt.Sprintf("run%d", a.random.IntN(40))
	switch a.random.IntN(9) {
	case 0, 1, 2:
		return t.publish(ctx, tx, []string{"run.progress", "order.placed", "note.written"}[a.random.IntN(3)], fresh)
	case 3:
		return t.change(ctx, tx, change{"run_status", fresh}, `INSERT INTO processing_sessions (run_id) VALUES ($1)`, fresh)
	case 4:
		return t.change(ctx, tx, change{"run_status", run}, `UPDATE processing_sessions SET progress_percentage = progress_percentage + 1 WHERE run_id = $1`, run)
	case 5:
		return t.change(ctx, tx, change{"user_books", reader}, `UPDATE books SET title = $2 FROM users u WHERE u.id = user_id AND clerk_user_id = $1`, reader, fresh)
	case 6:
		return t.change(ctx, tx, change{"user_books", reader}, `UPDATE users SET full_name = $2 WHERE clerk_user_id = $1`, reader, fresh)
	case 7:
		return a.nest(ctx, tx, t, doomed)
	default:
		time.Sleep(time.Duration(a.random.IntN(20)) * time.Millisecond) // of the load, not of the test
		return nil
	}
}

// nest does some steps behind a savepoint, which it goes back to or releases.
func (a *app) nest(ctx context.Context, tx pgx.Tx, t *transaction, doomed bool) error {
	nested, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	back := a.random.IntN(2) == 0
	inner := &transaction{number: t.number}
	for range 1 + a.random.IntN(3) {
		if err := a.step(ctx, nested, inner, doomed || back); err != nil {
			return err
		}
	}
	if back {
		return nested.Rollback(ctx)
	}
	t.events, t.changes = append(t.events, inner.events...), append(t.changes, inner.changes...)
	return nested.Commit(ctx)
}

// writeMuch writes thousands of rows, of events or of keys.
func (a *app) writeMuch(ctx context.Context, tx pgx.Tx, t *transaction, doomed bool) error {
	if !doomed && a.random.IntN(2) == 0 {
		for n := range bulk {
			t.changes = append(t.changes, change{"run_status", fmt.Sprintf("bulk%d", n+1)})
		}
		_, err := tx.Exec(ctx, `UPDATE processing_sessions SET progress_percentage = progress_percentage + 1 WHERE run_id LIKE 'bulk%'`)
		return err
	}
	subject := "much"
	if doomed {
		subject = never + subject
	}
	return t.publishMany(ctx, tx, "order.placed", subject, bulk, 10)
}

func (t *transaction) publish(ctx context.Context, tx pgx.Tx, kind, subject string) error {
	return t.publishMany(ctx, tx, kind, subject, 1, 10)
}

// publishMany publishes events whose data has some bytes each.
func (t *transaction) publishMany(ctx context.Context, tx pgx.Tx, kind, subject string, count, size int) error {
	const query = `SELECT array_agg(mythic_cache.publish($1, $2, jsonb_build_object('pad', repeat('x', $4)))) FROM generate_series(1, $3)`
	var ids [][16]byte
	if err := tx.QueryRow(ctx, query, kind, subject, count, size).Scan(&ids); err != nil {
		return err
	}
	t.events = append(t.events, ids...)
	return nil
}

func (t *transaction) change(ctx context.Context, tx pgx.Tx, c change, sql string, args ...any) error {
	if _, err := tx.Exec(ctx, sql, args...); err != nil {
		return err
	}
	t.changes = append(t.changes, c)
	return nil
}
