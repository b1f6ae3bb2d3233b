package api

import (
	"context"
	"time"

	"mythiccache/cache"
)

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
func (m *misses) judge(a ask, f *flight, arrived time.Time, got cache.Filled) (verdict, filled, error) {
	if got.Outcome == cache.Failed {
		if err := failure(a.minXid, got); err != nil {
			return done, filled{}, err
		}
		return goOn, filled{}, nil
	}
	<-f.sent // bounded by send; without it the event's time is not known
	if f.err != nil {
		return done, filled{}, f.err
	}
	answers := !f.started.Before(arrived) && got.Answers(time.UnixMilli(f.asked))
	switch {
	case !seen(a.minXid, got.Entry):
		return askAgain, filled{}, nil
	case answers:
		return done, filled{entry: got.Entry, at: got.At, stored: got.Outcome == cache.Accepted}, nil
	case got.Outcome == cache.Accepted:
		return readAgain, filled{}, nil
	default:
		return askAgain, filled{}, nil
	}
}

// overheard says what to make of a flight that another request has landed: what
// has been announced here as well counts, else the cache knows.
func (m *misses) overheard(a ask, f *flight, arrived time.Time, wait *cache.Wait) (verdict, filled, error) {
	<-f.sent
	if f.err != nil {
		return done, filled{}, f.err
	}
	select {
	case got := <-wait.C():
		return m.judge(a, f, arrived, got)
	default:
		return readAgain, filled{}, nil
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
