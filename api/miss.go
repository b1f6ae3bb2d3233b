package api

import (
	"context"
	"errors"
	"sync"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
)

// Why an entry was not had. Of errInVain nobody was asked; the last two say that
// X-Min-Xid asked for something that cannot be.
var (
	errBusy       = errors.New("too many requests are waiting")
	errNotFilled  = errors.New("nobody filled the entry in time")
	errInVain     = errors.New("nobody filled the entry for others just now")
	errXidOpen    = errors.New("the transaction is in progress")
	errXidUnknown = errors.New("the transaction was never begun")
)

// fillFailed says that a worker tried and gave up. The reason is for logs.
type fillFailed struct{ reason string } //nolint:errname // beside errBusy and its like

func (e *fillFailed) Error() string { return "the fill failed: " + e.reason }

// ask is an entry that somebody waits for.
type ask struct {
	view   *view.View
	key    string
	minXid *cache.MinXid
	event  event.Event   // what makes a worker bring it
	wait   time.Duration // 0: as long as a miss may wait
	spare  bool          // there is an old copy: do not wait where waiting was in vain just now
}

// filled is an entry that a worker brought.
type filled struct {
	entry     cache.Entry
	at        time.Time // when it was true, by the clock of Redis
	stored    bool      // false: it was overtaken while it was loaded, and is true for this request only
	collapsed bool      // the event was another request's
}

// misses is how requests wait for entries. Requests of this process for the same
// entry share one event in the stream, a flight:
//
//  1. The request registers with the waiters, then joins the key's flight or
//     starts one by appending its event. Whatever is announced from then on
//     reaches it.
//  2. An announced entry answers those whose question is older (see
//     cache.Filled.Answers). The question's time is that of the flight's event,
//     provided that the flight started after the request arrived.
//  3. To the others it says what to do. Where the store accepted the entry they
//     read again: something as new is there, or was dropped since. Where it
//     refused the entry, because the key changed while it was loaded, they start
//     the next flight, once.
//  4. Whoever has heard lands the flight. A request that joined it too late to
//     hear the announcement itself sees that, and reads again.
//
// So a key that changes all the time is loaded at most once per announcement and
// process, and no reader is given what is older than its own question.
type misses struct {
	store     *cache.Store
	waiters   *cache.Waiters
	publisher Publisher
	patience  time.Duration
	limit     int           // of requests that wait at once, and of events in sending
	sending   chan struct{} // events of who has an old copy: he may be gone before they are sent
	returned  returning     // of Redis

	mu      sync.Mutex
	waiting int
	flights map[flightKey]*flight
	swept   time.Time
}

func newMisses(store *cache.Store, waiters *cache.Waiters, publisher Publisher, patience time.Duration, limit int) *misses {
	return &misses{
		store: store, waiters: waiters, publisher: publisher, patience: patience, limit: limit,
		sending: make(chan struct{}, limit), flights: map[flightKey]*flight{},
	}
}

// await asks for an entry and waits for it. It returns errBusy, errNotFilled, errInVain,
// errXidOpen, errXidUnknown, a *fillFailed, the context's error, or one of Redis.
func (m *misses) await(ctx context.Context, a ask) (filled, error) {
	if err := m.enter(a); err != nil {
		return filled{}, err
	}
	defer m.leave()
	wait := m.waiters.Wait(a.view.Name, a.key)
	defer wait.Cancel()

	arrived := time.Now()
	patience := m.patienceFor(a)
	ctx, cancel := context.WithTimeout(ctx, patience+redisTimeout) // a bound for reread; the timer comes first
	defer cancel()
	timer := time.NewTimer(patience)
	defer timer.Stop()

	f, collapsed := m.join(ctx, a)
	sent := f.sent
	for {
		var heard verdict
		var answer filled
		var err error
		announced, landed := wait.C(), f.landed
		if sent != nil { // what they mean depends on when the event was taken
			announced, landed = nil, nil
		}
		select {
		case <-sent:
			if f.err != nil {
				m.land(a, f)
				return filled{}, f.err
			}
			sent = nil // known from here on
			continue
		case got := <-announced:
			heard, answer, err = m.judge(a, f, arrived, got)
		case <-landed:
			heard, answer, err = m.overheard(a, f, arrived, wait)
		case <-timer.C:
			m.inVain(f)
			return filled{}, errNotFilled
		case <-ctx.Done():
			m.land(a, f)
			return filled{}, ctx.Err()
		}
		if heard == readAgain {
			var hit bool
			heard = askAgain
			if answer, hit, err = m.reread(ctx, a); hit || err != nil {
				heard = done
			}
		}
		switch heard {
		case done:
			m.land(a, f)
			answer.collapsed = collapsed
			return answer, err
		case askAgain:
			m.land(a, f)
			f, collapsed = m.join(ctx, a)
			sent = f.sent
		}
	}
}

// enter counts a request that is about to wait.
func (m *misses) enter(a ask) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.spare {
		if f := m.flights[a.flightKey()]; f != nil && f.vain && time.Since(f.started) < vainFor {
			return errInVain
		}
		if len(m.sending) == cap(m.sending) {
			return errBusy
		}
	}
	if m.waiting >= m.limit {
		return errBusy
	}
	m.waiting++
	return nil
}

func (m *misses) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting--
}

// count returns how many requests wait.
func (m *misses) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting
}
