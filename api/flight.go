package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mythiccache/cache"
)

type flightKey struct {
	view, key string
	min       cache.MinXid
}

// flight is one event that was appended for all who wait.
type flight struct {
	started time.Time     // before the event was appended
	sent    chan struct{} // closed once asked and err stand
	asked   int64         // when Redis took the event, in Unix milliseconds
	err     error
	landed  chan struct{} // closed by who has heard of it; guarded by misses.mu
	over    bool          // landed is closed; guarded by misses.mu
	vain    bool          // somebody waited for it in vain; guarded by misses.mu
}

// vainFor is how long a flight that nobody answered keeps requests with an old
// copy from waiting again.
const vainFor = time.Second

// join returns the flight to wait for, and whether it was there already.
func (m *misses) join(ctx context.Context, a ask) (f *flight, collapsed bool) {
	k := a.flightKey()
	now := time.Now()
	m.mu.Lock()
	if f := m.flights[k]; f != nil && now.Sub(f.started) < m.patience/2 {
		m.mu.Unlock()
		return f, true
	}
	f = &flight{started: now, sent: make(chan struct{}), landed: make(chan struct{})}
	m.flights[k] = f
	m.sweep(now)
	m.mu.Unlock()
	if !a.spare {
		m.send(ctx, a, f)
		return f, false
	}
	// Who has an old copy looks at his time meanwhile: others may have joined who have more.
	m.sendAside(ctx, a, f)
	return f, false
}

// sendAside is send without waiting for it.
func (m *misses) sendAside(ctx context.Context, a ask, f *flight) {
	select {
	case m.sending <- struct{}{}:
		go func() {
			defer func() { <-m.sending }()
			m.send(ctx, a, f)
		}()
	default: // enter lets nobody in then, but somebody may just have been
		f.err = errBusy
		close(f.sent)
	}
}

// ask has an entry brought without waiting for it.
func (m *misses) ask(ctx context.Context, a ask) error {
	f, others := m.join(ctx, a)
	if others || a.spare { // or it has been sent by now
		select {
		case <-f.sent:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if f.err != nil {
		m.land(a, f)
	}
	return f.err
}

// send appends the event. Others wait for it too, so it outlives its request.
func (m *misses) send(ctx context.Context, a ask, f *flight) {
	defer close(f.sent)
	f.err = errors.New("the event was not appended")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.patienceFor(ask{}))
	defer cancel()
	ids, err := m.publisher.Append(ctx, a.event)
	switch {
	case err != nil:
		f.err = fmt.Errorf("append %s: %w", a.event.Type, err)
	case len(ids) == 1:
		ms, _, _ := strings.Cut(ids[0], "-")
		f.asked, f.err = strconv.ParseInt(ms, 10, 64)
	}
}

// wait waits for the events that are sent while nobody waits for them any more.
func (m *misses) wait() {
	for range m.limit {
		m.sending <- struct{}{}
	}
	for range m.limit {
		<-m.sending
	}
}

// land ends a flight: whoever comes now starts the next.
func (m *misses) land(a ask, f *flight) {
	k := a.flightKey()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !f.over {
		f.over = true
		close(f.landed)
	}
	if m.flights[k] == f {
		delete(m.flights, k)
	}
}

func (m *misses) inVain(f *flight) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f.vain = true
}

// sweep forgets flights that nobody answered. It is called with the lock held.
func (m *misses) sweep(now time.Time) {
	if now.Sub(m.swept) < vainFor {
		return
	}
	m.swept = now
	for k, f := range m.flights {
		if now.Sub(f.started) > vainFor+m.patience {
			delete(m.flights, k)
		}
	}
}

func (a ask) flightKey() flightKey {
	k := flightKey{view: a.view.Name, key: a.key}
	if a.minXid != nil {
		k.min = *a.minXid
	}
	return k
}
