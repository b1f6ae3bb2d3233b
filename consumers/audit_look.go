package consumers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/producers/stream"
)

// Road says how far changes have come on their way to the cache. Without it an audit
// knows the outbox alone: whatever it holds that an entry has not seen is on its way.
type Road struct {
	Keys  stream.Keys
	Group string // the group that drops the entries of all views

	// Sent returns the snapshot up to which the outbox is in the streams.
	Sent func(context.Context) (version.Snapshot, error)

	// Leads reports whether a relay is known to have been at work after a moment, by
	// this machine's clock; nil: it is not asked. What no trigger sees, DDL for one, a
	// relay notices at its heartbeats.
	Leads func(ctx context.Context, after time.Time) (bool, error)
}

// examiner compares entries with what SQL says.
type examiner struct {
	store  *cache.Store
	loader *Loader
	road   Road
	settle time.Duration // how long a difference must last that nothing is on its way to mend
}

// defaultSettle is some heartbeats of a relay.
const defaultSettle = 5 * time.Second

// state is what a look found.
type state int

const (
	gone    state = iota // nothing that readers would be given
	unsure               // an entry that Redis may be about to lose, or of another epoch
	same                 // what SQL says
	differs              // something else
)

// sight is what one look at a key saw.
type sight struct {
	state
	cache.Entry

	truth   audited
	why     string    // it differs
	settled time.Time // all that the audit's snapshot has seen was in the streams by then; zero: it was not
}

// look compares one key with one load.
func (x *examiner) look(ctx context.Context, v *view.View, key string) (s sight, err error) {
	in, err := x.store.Inspect(ctx, v, key)
	if err != nil {
		return s, err
	}
	s.Entry = in.Entry
	if s.state = servable(in); s.state != same {
		return s, nil
	}
	if s.truth, err = x.loader.audit(ctx, v, key, nil); err != nil {
		return s, unread(err)
	}
	s.compare()
	return s, nil
}

// lookClosely compares an entry under suspicion once more, with one load, and finds out
// what is on its way.
func (x *examiner) lookClosely(ctx context.Context, v *view.View, e cache.Entry) (s sight, err error) {
	s.Entry = e
	of := &unseen{entry: e.Snapshot}
	if x.road.Sent != nil {
		// Before the snapshot: a relay that goes on meanwhile only sends more.
		if of.sent, err = x.road.Sent(ctx); err != nil {
			return s, fmt.Errorf("audit %s: %w", v.Name, err)
		}
	}
	read := time.Now()
	if s.truth, err = x.loader.audit(ctx, v, e.Key, of); err != nil {
		return s, unread(err)
	}
	// With no position in Redis, or one of another epoch, all is to be sent again.
	waiting := s.truth.waiting || x.road.Sent != nil && of.sent.Epoch != e.Version.Epoch()
	if s.compare(); s.state == differs && !waiting {
		s.settled = read
	}
	return s, nil
}

// errUnread says that the truth of one key could not be had: too many loads are under
// way, somebody holds a lock, the load takes too long or fails. Other keys may fare
// better, and there will be another look.
var errUnread = errors.New("the truth could not be read")

// unread tells that from a PostgreSQL that is away and from the caller's end.
func unread(err error) error {
	if errors.Is(err, ErrPaused) || errors.Is(err, ErrNoEpoch) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnread, err)
}

// servable says whether a reader would get the entry, as fresh or past its time. One
// from before a restart of Redis nobody answers for until it is confirmed.
func servable(in cache.Inspection) state {
	switch {
	case in.Status == cache.Miss:
		return gone
	case in.Status == cache.Hit, in.Why == cache.WhyStale && in.Confirmed:
		return same
	}
	return unsure
}

// compare judges what was seen. An entry of the same epoch that has seen more than the
// truth, which was read after it, is none that a load has made; it would stand against
// every change and every fill until PostgreSQL has come so far. Should the truth have
// been read from a server that lags, another look will say so.
func (s *sight) compare() {
	s.why = difference(s.Entry, s.truth.Loaded)
	switch {
	case s.truth.Version.Epoch() != s.Version.Epoch():
		s.state = unsure // the relay has yet to notice, or this server is no longer the primary
		return
	case s.truth.Version.Compare(s.Version) < 0:
		s.why = "it has seen more than has ever been"
	case s.Snapshot.Xmax == 0:
		s.why = "it does not say which changes it has seen"
	}
	if s.state = same; s.why != "" {
		s.state = differs
	}
}

// is reports whether two looks saw one and the same entry.
func (s *sight) is(e cache.Entry) bool {
	return s.Version == e.Version && s.Saved.Equal(e.Saved) && s.Negative == e.Negative && bytes.Equal(s.Body, e.Body)
}
