package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
)

// Why an entry was not had. The last two say that X-Min-Xid asked for something
// that cannot be.
var (
	errBusy       = errors.New("too many requests are waiting")
	errNotFilled  = errors.New("nobody filled the entry in time")
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
//
// So a key that changes all the time is loaded at most once per announcement and
// process, and no reader is given what is older than its own question.
type misses struct {
	store     *cache.Store
	waiters   *cache.Waiters
	publisher Publisher
	patience  time.Duration
	limit     int // of requests that wait at once

	mu      sync.Mutex
	waiting int
	flights map[flightKey]*flight
	swept   time.Time
}

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
	vain    bool // somebody waited for it in vain; guarded by misses.mu
}

// vainFor is how long a flight that nobody answered keeps requests with an old
// copy from waiting again.
const vainFor = time.Second

func newMisses(store *cache.Store, waiters *cache.Waiters, publisher Publisher, patience time.Duration, limit int) *misses {
	return &misses{store: store, waiters: waiters, publisher: publisher, patience: patience, limit: limit, flights: map[flightKey]*flight{}}
}

// await asks for an entry and waits for it. It returns errBusy, errNotFilled,
// errXidOpen, errXidUnknown, a *fillFailed, the context's error, or one of Redis.
func (m *misses) await(ctx context.Context, a ask) (filled, error) {
	if err := m.enter(a); err != nil {
		return filled{}, err
	}
	defer m.leave()
	wait := m.waiters.Wait(a.view.Name, a.key)
	defer wait.Cancel()

	arrived := time.Now()
	patience := a.wait
	if patience == 0 {
		patience = m.patience
	}
	ctx, cancel := context.WithTimeout(ctx, patience+redisTimeout) // a bound for reread; the timer comes first
	defer cancel()
	timer := time.NewTimer(patience)
	defer timer.Stop()

	f, collapsed := m.join(ctx, a)
	sent := f.sent
	for {
		select {
		case <-sent:
			if f.err != nil {
				return filled{}, f.err
			}
			sent = nil // known from here on
		case got := <-wait.C():
			verdict, err := m.judge(a, f, arrived, got)
			answer := filled{entry: got.Entry, at: got.At, stored: got.Outcome == cache.Accepted}
			if verdict == readAgain {
				var hit bool
				if answer, hit, err = m.reread(ctx, a); hit || err != nil {
					verdict = done
				} else {
					verdict = askAgain
				}
			}
			if verdict == goOn {
				continue
			}
			m.land(a, f)
			if verdict == done {
				answer.collapsed = collapsed
				return answer, err
			}
			f, collapsed = m.join(ctx, a)
			sent = f.sent
		case <-timer.C:
			m.inVain(f)
			return filled{}, errNotFilled
		case <-ctx.Done():
			return filled{}, ctx.Err()
		}
	}
}

// verdict is what an announcement means to one request.
type verdict int

const (
	goOn      verdict = iota // nothing
	done                     // it is the answer, or there will be none
	readAgain                // the cache has something at least as new, or has lost it since
	askAgain                 // an entry, but not one for this request
)

// judge says what an announcement means to a request that arrived at a time and
// waits for a flight.
func (m *misses) judge(a ask, f *flight, arrived time.Time, got cache.Filled) (verdict, error) {
	if got.Outcome == cache.Failed {
		if err := failure(a.minXid, got); err != nil {
			return done, err
		}
		return goOn, nil
	}
	<-f.sent // bounded by send; without it the event's time is not known
	if f.err != nil {
		return done, f.err
	}
	answers := !f.started.Before(arrived) && got.Answers(time.UnixMilli(f.asked))
	switch {
	case !seen(a.minXid, got.Entry):
		return askAgain, nil
	case answers:
		return done, nil
	case got.Outcome == cache.Accepted:
		return readAgain, nil
	default:
		return askAgain, nil
	}
}

// What a worker says of a transaction that it cannot wait for.
const (
	reasonXidOpen    = "xid in progress"
	reasonXidUnknown = "xid unknown"
)

// failure makes an error of a fill that failed; nil where it failed for a
// transaction that this request does not ask for.
func failure(minXid *cache.MinXid, got cache.Filled) error {
	switch {
	case got.MinXid != nil && (minXid == nil || *minXid != *got.MinXid):
		return nil
	case got.MinXid != nil && got.Reason == reasonXidOpen:
		return errXidOpen
	case got.MinXid != nil && got.Reason == reasonXidUnknown:
		return errXidUnknown
	default:
		return &fillFailed{reason: got.Reason}
	}
}

// seen reports whether an entry has seen the transaction that is asked for.
func seen(minXid *cache.MinXid, e cache.Entry) bool {
	if minXid == nil {
		return true
	}
	return (minXid.Epoch == 0 || minXid.Epoch == e.Snapshot.Epoch) && e.Snapshot.Sees(minXid.Xid)
}

// reread looks whether the cache has an answer after all.
func (m *misses) reread(ctx context.Context, a ask) (filled, bool, error) {
	result, err := m.store.Read(ctx, cache.Query{View: a.view, Key: a.key, MinXid: a.minXid})
	if err != nil {
		return filled{}, false, err
	}
	return filled{entry: result.Entry, at: result.Now, stored: true}, result.Status == cache.Hit, nil
}

// join returns the flight to wait for, and whether it was there already.
func (m *misses) join(ctx context.Context, a ask) (f *flight, collapsed bool) {
	k := a.flightKey()
	now := time.Now()
	m.mu.Lock()
	if f := m.flights[k]; f != nil && now.Sub(f.started) < m.patience/2 {
		m.mu.Unlock()
		return f, true
	}
	f = &flight{started: now, sent: make(chan struct{})}
	m.flights[k] = f
	m.sweep(now)
	m.mu.Unlock()
	m.send(ctx, a, f)
	return f, false
}

// send appends the event. Others wait for it too, so it outlives its request.
func (m *misses) send(ctx context.Context, a ask, f *flight) {
	defer close(f.sent)
	f.err = errors.New("the event was not appended")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.patience)
	defer cancel()
	ids, err := m.publisher.Append(ctx, a.event)
	switch {
	case err != nil:
		f.err = fmt.Errorf("append %s: %w", a.event.Type, err)
	case len(ids) == 1:
		ms, _, _ := strings.Cut(ids[0], "-")
		f.asked, f.err = strconv.ParseInt(ms, 10, 64)
	}
	if f.err != nil {
		m.land(a, f)
	}
}

// land ends a flight: whoever comes now starts the next.
func (m *misses) land(a ask, f *flight) {
	k := a.flightKey()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flights[k] == f {
		delete(m.flights, k)
	}
}

func (m *misses) inVain(f *flight) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f.vain = true
}

// enter counts a request that is about to wait.
func (m *misses) enter(a ask) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.spare {
		if f := m.flights[a.flightKey()]; f != nil && f.vain && time.Since(f.started) < vainFor {
			return errNotFilled
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

// count returns how many requests wait.
func (m *misses) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting
}
