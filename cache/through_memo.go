package cache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"mythiccache/cache/view"
)

// memo is what a Through does, whatever the type of its results.
type memo struct {
	store    *Store
	waiters  *Waiters // nil: none
	view     *view.View
	callFor  time.Duration
	leaseFor time.Duration
	redisFor time.Duration
	onError  func(ctx context.Context, key string, err error) // nil: nobody hears
	bypassed atomic.Uint64
	rest     rest
	flights  flights
}

// question is one call of Do.
type question struct {
	key  string
	call func(context.Context) ([]byte, error)
	take func([]byte) error // keeps the answer for the caller, unless it cannot be decoded
}

// errUnfinished is what others hear whose call ended in a panic.
var errUnfinished = errors.New("the call did not return")

// lookAgain is how long after it one who waits for another process looks again,
// unless an announcement comes before.
const lookAgain = 200 * time.Millisecond

// do answers a question: from the store, or with what another in this process
// gets, or by getting it.
func (m *memo) do(ctx context.Context, q question) error {
	for {
		e, found, err := m.look(ctx, q)
		if found {
			return m.told(e)
		}
		if err := ended(ctx); err != nil {
			return err
		}
		f, joined, first := m.flights.join(q.key, m.longest())
		if first {
			return m.fly(ctx, q, f, err)
		}
		landed, err := m.await(ctx, f)
		if err != nil {
			return err
		}
		if landed && f.answers(joined) {
			return q.accept(f.result)
		}
	}
}

// longest is more than a flight can take: to wait for another process, to call,
// and to be heard by Redis now and then.
func (m *memo) longest() time.Duration { return 2*(m.callFor+m.leaseFor+lookAgain) + 10*m.redisFor }

// await waits until a flight has landed, or takes too long, or the context ends.
func (m *memo) await(ctx context.Context, f *flight) (landed bool, err error) {
	late := time.NewTimer(time.Until(f.began.Add(m.longest())))
	defer late.Stop()
	select {
	case <-f.done:
		return true, nil
	case <-late.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// accept is how one who has waited takes a result.
func (q question) accept(r result) error {
	if r.err != nil {
		return r.err
	}
	return q.take(r.body)
}

// fly gets the answer for all who join the flight. Where the store cannot even be
// looked at, away says why.
func (m *memo) fly(ctx context.Context, q question, f *flight, away error) error {
	r := result{err: fmt.Errorf("%s: %w", m.view.Name, errUnfinished)}
	returned := false
	defer func() {
		if !returned { // a panic, which passes on to whoever called Do
			r.good = m.flights.mark(f) - 1
		}
		m.flights.land(q.key, f, r)
	}()
	if away != nil {
		r = m.bypass(ctx, q, f)
	} else {
		r = m.seek(ctx, q, f)
	}
	returned = true
	return r.err
}

// look asks the store. The question has taken what is found. The error is that of
// Redis, or errResting.
func (m *memo) look(ctx context.Context, q question) (e Entry, found bool, err error) {
	if !m.rest.over() {
		return Entry{}, false, errResting
	}
	within, cancel := context.WithTimeout(ctx, m.redisFor)
	defer cancel()
	r, err := m.store.Read(within, Query{View: m.view, Key: q.key})
	if err != nil {
		if ended(ctx) == nil {
			m.rest.note(false)
			m.failed(ctx, q.key, err)
		}
		return Entry{}, false, err
	}
	m.rest.note(true)
	if r.Status != Hit {
		return Entry{}, false, nil
	}
	if !r.Entry.Negative {
		if err := q.take(r.Entry.Body); err != nil {
			m.failed(ctx, q.key, err)
			return Entry{}, false, nil
		}
	}
	return r.Entry, true, nil
}

// told is what Do returns for an entry.
func (m *memo) told(e Entry) error {
	if e.Negative {
		return fmt.Errorf("%s: %w", m.view.Name, ErrNotFound)
	}
	return nil
}

// failed tells whoever wants to hear it.
func (m *memo) failed(ctx context.Context, key string, err error) {
	m.store.log.Debug().Err(err).Str("view", m.view.Name).Str("key", key).Msg("cache not used")
	if m.onError != nil {
		m.onError(ctx, key, err)
	}
}
