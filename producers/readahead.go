package producers

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// readAhead reads the next batch of a backlog while the one before it is sent, so
// that neither server waits for the other. The connection is the reading's until
// wait has returned.
type readAhead struct {
	conn    *pgx.Conn
	reading *underway
}

// underway is a reading that has begun.
type underway struct {
	from    string // the position
	done    chan struct{}
	outcome batch
	err     error
}

// begin reads behind a position. It ends with the context.
func (a *readAhead) begin(ctx context.Context, from position, limit, keys int) {
	r := &underway{from: from.String(), done: make(chan struct{})}
	a.reading = r
	go func() {
		defer close(r.done)
		r.outcome, r.err = read(ctx, a.conn, from, limit, keys)
	}()
}

// take returns what was read behind a position, now or ahead. A reading that
// began elsewhere, since sending came no further, is dropped.
func (a *readAhead) take(ctx context.Context, from position, limit, keys int) (batch, error) {
	a.wait()
	r := a.reading
	a.reading = nil
	if r != nil && r.from == from.String() {
		return r.outcome, r.err
	}
	if r != nil && r.err != nil && a.conn.IsClosed() {
		return batch{}, r.err
	}
	return read(ctx, a.conn, from, limit, keys)
}

// wait returns once the connection is free.
func (a *readAhead) wait() {
	if a.reading != nil {
		<-a.reading.done
	}
}
