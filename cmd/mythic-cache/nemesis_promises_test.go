package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// promises are those who write and read through all faults, and what they have been
// promised.
type promises struct {
	*nemesis
	gate   sync.RWMutex // held for writing: nobody is within a transaction
	cancel context.CancelFunc
	all    sync.WaitGroup

	commits, unknown, reads, stale, away, readBack atomic.Int64

	mu    sync.Mutex
	wrong error
}

// The users whose books are counted, and those whose books are made, moved and deleted.
func countedUsers() []string {
	users := make([]string, 6)
	for i := range users {
		users[i] = fmt.Sprintf("counted%d", i)
	}
	return users
}

func (n *nemesis) startPromises() *promises {
	ctx, cancel := context.WithCancel(n.t.Context())
	p := &promises{nemesis: n, cancel: cancel}
	for range 2 {
		p.all.Go(func() { p.write(ctx, p.count) })
	}
	p.all.Go(func() { p.write(ctx, p.mix) })
	for range 3 {
		p.all.Go(func() { p.read(ctx) })
	}
	n.t.Cleanup(p.stop)
	return p
}

func (p *promises) stop() {
	p.cancel()
	p.all.Wait()
}

// broken notes a promise that was not kept.
func (p *promises) broken(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong = errors.Join(p.wrong, fmt.Errorf("%s: %w", time.Now().Format("15:04:05.000"), err))
}

func (p *promises) judge() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wrong
}

// write does transactions, over a new connection where the old one broke.
func (p *promises) write(ctx context.Context, do func(context.Context, *pgx.Conn, *countReader) error) {
	reader := newCountReader(countedUsers())
	defer reader.client.CloseIdleConnections()
	reader.client.Timeout = 5 * time.Second
	var conn *pgx.Conn
	for ctx.Err() == nil {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, p.database); err != nil {
				linger(50 * time.Millisecond)
				continue
			}
		}
		if err := do(ctx, conn, reader); err != nil {
			p.unknown.Add(1)
			p.excuse(err)
			conn.Close(context.WithoutCancel(ctx))
		}
	}
	if conn != nil {
		conn.Close(context.WithoutCancel(ctx))
	}
}

// excuse takes what the faults of a server explain: conflicts among writers, and a
// server or connection that goes. Anything else the app suffered from what captures.
func (p *promises) excuse(err error) {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code[:2] != "40" && refused.Code[:2] != "57" {
		p.broken(fmt.Errorf("the app's writes must not suffer: %w", err))
	}
}

// count writes, and half of the time reads back what it wrote, whoever answers.
func (p *promises) count(ctx context.Context, conn *pgx.Conn, reader *countReader) error {
	p.gate.RLock()
	// The transaction outlives the signal to stop, so that its fate is known.
	w, err := countOn(context.WithoutCancel(ctx), conn, countedUsers())
	p.gate.RUnlock()
	if err != nil || w == nil {
		return err
	}
	p.commits.Add(1)
	if w.minXid == "" || oneOf(2) {
		return nil
	}
	for user, count := range w.counts {
		p.back(ctx, reader, user, w.minXid, count)
	}
	return nil
}

// back reads a write back. Who cannot answer may say so.
func (p *promises) back(ctx context.Context, reader *countReader, user, minXid string, count int64) {
	for range 3 {
		a, err := reader.read(ctx, p.anyAPI(), user, minXid)
		switch {
		case errors.Is(err, errNeverTrue):
			p.broken(err)
		case err != nil || a.status == http.StatusServiceUnavailable:
			continue
		case a.status == http.StatusBadRequest: // the epoch is over
		case a.status != http.StatusOK:
			p.broken(fmt.Errorf("%s after transaction %s: %d %s", user, minXid, a.status, a.said))
		case a.count < count:
			p.broken(fmt.Errorf("%s after transaction %s: the answer (%s) is %d, older than the write of %d", user, minXid, a.mark, a.count, count))
		default:
			p.readBack.Add(1)
		}
		return
	}
}

// mix makes, moves and deletes books.
func (p *promises) mix(ctx context.Context, conn *pgx.Conn, _ *countReader) error {
	p.gate.RLock()
	defer p.gate.RUnlock()
	w := &writer{}
	err := w.transaction(context.WithoutCancel(ctx), conn, p.users)
	p.commits.Add(int64(w.commits))
	return err
}

// nearLag is how long one process may go on answering from its memory after another
// has answered with something newer: as long as it trusts a link that has broken, and
// as long again for a machine that does more than this.
const nearLag = 2 * time.Second

// given is what a reader was last given as fresh, by each process and by any.
type given struct {
	by     map[string]countAnswer
	newest countAnswer
	at     time.Time // of the newest
}

// promised is what an answer of that process must not be older than.
func (g *given) promised(api string) countAnswer {
	if time.Since(g.at) > nearLag {
		return g.newest
	}
	return g.by[api]
}

func (g *given) take(api string, a countAnswer) {
	g.by[api] = a
	if a.count > g.newest.count {
		g.newest, g.at = a, time.Now()
	}
}

// read is one reader. What it was given as fresh it may count on: at once from the
// process that gave it, and from the others, too, when their memories had time to hear.
func (p *promises) read(ctx context.Context) {
	users := countedUsers()
	reader := newCountReader(users)
	defer reader.client.CloseIdleConnections()
	reader.client.Timeout = 5 * time.Second
	all := map[string]*given{}
	for _, user := range users {
		all[user] = &given{by: map[string]countAnswer{}}
	}
	for ctx.Err() == nil {
		user, api := users[rand.IntN(len(users))], p.anyAPI()
		promised := all[user].promised(api) // before it is asked
		a, err := reader.read(ctx, api, user, "")
		switch {
		case errors.Is(err, errNeverTrue):
			p.broken(err)
		case err != nil || a.status == http.StatusServiceUnavailable:
			p.away.Add(1)
			linger(20 * time.Millisecond)
		case a.status != http.StatusOK:
			p.broken(fmt.Errorf("%s: %d %s", user, a.status, a.said))
		case a.mark == "STALE":
			p.stale.Add(1)
		case a.count < promised.count:
			p.broken(fmt.Errorf("%s: the answer (%s) is %d, after one (%s) of %d", user, a.mark, a.count, promised.mark, promised.count))
		default:
			p.reads.Add(1)
			all[user].take(api, a)
		}
	}
}

func (p *promises) anyAPI() string { return p.apis[rand.IntN(len(p.apis))].base }

// report says what was promised.
func (p *promises) report() string {
	return fmt.Sprintf("%d commits and %d of unknown fate; %d fresh answers, %d stale and %d that could not be given; %d writes read back",
		p.commits.Load(), p.unknown.Load(), p.reads.Load(), p.stale.Load(), p.away.Load(), p.readBack.Load())
}
