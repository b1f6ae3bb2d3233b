package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// seek waits while another process has the lease, and makes the answer once it
// has not. An announcement only wakes: what is then in the store is the answer, if
// anything is.
func (m *memo) seek(ctx context.Context, q question, f *flight) result {
	heard, cancel := m.listen(q.key)
	defer cancel()
	// The lease of one who hangs is over by then, and there was time to look.
	patience := time.NewTimer(m.callFor + m.leaseFor + 2*lookAgain)
	defer patience.Stop()
	for last := false; ; {
		lease, err := m.take(ctx, q.key)
		switch {
		case err == nil:
			return m.hold(ctx, q, f, lease)
		case ended(ctx) != nil:
			return result{err: ended(ctx)}
		case last, !errors.Is(err, ErrLeased):
			m.failed(ctx, q.key, err)
			return m.bypass(ctx, q, f)
		}
		look := time.NewTimer(lookAgain)
		select {
		case <-heard:
		case <-look.C:
		case <-patience.C:
			last = true
		case <-ctx.Done():
			look.Stop()
			return result{err: ctx.Err()}
		}
		look.Stop()
		if r, found := m.present(ctx, q, f); found {
			return r
		}
	}
}

// listen returns what wakes one who waits for a key: nothing where nobody hears.
func (m *memo) listen(key string) (<-chan Filled, func()) {
	if m.waiters == nil {
		return nil, func() {}
	}
	wait := m.waiters.Wait(m.view.Name, key)
	return wait.C(), wait.Cancel
}

// present looks whether the answer has come by itself.
func (m *memo) present(ctx context.Context, q question, f *flight) (result, bool) {
	mark := m.flights.mark(f)
	e, found, err := m.look(ctx, q)
	if err != nil || !found {
		return result{}, false // what there is to do next fails as well, and says so
	}
	return result{body: e.Body, err: m.told(e), good: mark}, true
}

// hold makes the answer under the lease, unless another has put it between the
// last look and the lease.
func (m *memo) hold(ctx context.Context, q question, f *flight, lease Lease) (r result) {
	settled := false
	defer func() {
		if !settled {
			m.giveBack(ctx, lease) // after a panic, too
		}
	}()
	if r, found := m.present(ctx, q, f); found {
		return r
	}
	started := time.Now()
	r = m.callHeld(ctx, q, f, &lease)
	fill := Fill{Body: r.body, LoadTook: time.Since(started)}
	switch {
	case r.err == nil:
	case errors.Is(r.err, ErrNotFound) && m.view.Negative > 0:
		fill.Negative = true
	default:
		return r
	}
	mark := m.flights.mark(f)
	err := m.put(ctx, lease, fill)
	switch {
	case err == nil:
		settled = true
		r.good = mark
	case errors.Is(err, ErrRefused): // forgotten since, or the lease ran out
		settled = true
	default:
		m.failed(ctx, q.key, err)
	}
	return r
}

// callHeld calls the function while the lease is renewed.
func (m *memo) callHeld(ctx context.Context, q question, f *flight, lease *Lease) result {
	stop := m.renew(ctx, lease)
	defer stop()
	return m.call(ctx, q, f)
}

// call calls the function. Its error is for those who waited, too, unless the
// end of the caller's own context may be why.
func (m *memo) call(ctx context.Context, q question, f *flight) result {
	r := result{good: m.flights.mark(f)}
	within, cancel := context.WithTimeout(ctx, m.callFor)
	defer cancel()
	r.body, r.err = q.call(within)
	if r.err == nil {
		r.err = q.take(r.body)
	}
	if r.err != nil && ended(ctx) != nil {
		r.good = 0
	}
	return r
}

// bypass calls the function without a lease, and keeps nothing.
func (m *memo) bypass(ctx context.Context, q question, f *flight) result {
	if err := ended(ctx); err != nil {
		return result{err: err}
	}
	m.bypassed.Add(1)
	return m.call(ctx, q, f)
}

// put stores what was made, though the caller may have stopped asking: it is made.
func (m *memo) put(ctx context.Context, lease Lease, fill Fill) error {
	ctx, cancel := m.afterwards(ctx)
	defer cancel()
	if _, err := m.store.Put(ctx, lease, fill); err != nil {
		return fmt.Errorf("keep the result: %w", err)
	}
	return nil
}
