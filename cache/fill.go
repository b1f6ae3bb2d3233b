package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/version"
)

// Fill is what a loader made.
type Fill struct {
	Negative bool             // there is no such row; Body does not matter
	Owner    string           // where Owned
	Owned    bool             //
	Version  version.Version  // of the snapshot; zero for a model's view: the lease's time
	Snapshot version.Snapshot // zero for a model's view
	Body     []byte           // final bytes
	LoadTook time.Duration    //
	TTL      time.Duration    // 0: the view's, or its negative one, jittered a little downwards
	Brief    bool             // it is gone when its TTL is over, and never stale
	Pause    time.Duration    // for how long nobody is given the lease again, whatever becomes of the value
}

// Put stores what was made under a lease, ends the lease, and announces the
// entry to those who wait for it. It fails with ErrRefused where key or view
// have seen something newer, the lease is gone, or Redis was restarted since
// the lease was taken; so a fill that is too old is dropped, since the fence that it
// would have to meet and the token of its lease live in one key and end together; the entry is then returned and announced all the same,
// to those whom it may answer: see Filled.Answers.
func (s *Store) Put(ctx context.Context, l Lease, f Fill) (Entry, error) {
	started := time.Now()
	e, ttl, err := l.entry(f)
	if err != nil {
		return Entry{}, fmt.Errorf("put %s: %w", l.View.Name, err)
	}
	if l.View.Model {
		if e, err = s.sealed(e); err != nil {
			return Entry{}, fmt.Errorf("put %s: %w", l.View.Name, err)
		}
	}
	value, err := appendEntry(make([]byte, 0, headerLen+len(e.Body)+len(e.Owner)+64), e, runOf(l.runID))
	if err != nil {
		return Entry{}, fmt.Errorf("put %s: %w", l.View.Name, err)
	}
	if f.Pause > 0 {
		pause(value, e.Saved.Add(f.Pause))
	}
	keep := ttl
	if !e.Negative {
		body := len(e.stored())
		e.ETag = etag(value[len(value)-body-etagLen : len(value)-body])
	}
	if !e.Negative && !f.Brief {
		keep += s.graceOf(l.View)
	}
	judged, at, err := s.put(ctx, l, e, value, keep)
	if err != nil {
		return Entry{}, fmt.Errorf("put %s: %w", l.View.Name, err)
	}
	filled := Filled{Entry: e, Outcome: Accepted, Taken: l.Taken, At: at}
	if judged != nil {
		filled.Outcome, filled.Reason = Refused, judged.Error()
	}
	s.notePut(filled, len(value), s.observe("put", started))
	s.announce(ctx, filled)
	return e, judged
}

// put runs put.lua and then compares with the view's fence, which is in a slot
// of its own. The order matters: a fence that is not above the value after the
// put was not above it at the put either, so whoever asked before it may have it.
func (s *Store) put(ctx context.Context, l Lease, e Entry, value []byte, keep time.Duration) (judged error, at time.Time, err error) {
	var cmd *redis.Cmd
	var fence *redis.StringCmd
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		cmd = call(ctx, p, &s.scripts.put, []string{s.keys.entry(l.View.Name, l.Key)},
			l.token, l.runID, e.Version.String(), value, max(keep.Milliseconds(), 1))
		fence = p.Get(ctx, s.keys.view(l.View.Name))
	})
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, time.Time{}, err
	}
	r := replyOf(cmd)
	why, at := r.text(), time.UnixMicro(r.int())
	if r.err != nil {
		return nil, time.Time{}, r.err
	}
	whole, known, err := decodeViewReply(fence)
	if err != nil {
		return nil, time.Time{}, err
	}
	switch {
	case why != "":
		return fmt.Errorf("%w: %s", ErrRefused, why), at, nil
	case !known:
		return fmt.Errorf("%w: %s", ErrRefused, whyNoView), at, nil
	case e.Version.Compare(whole.fence) < 0:
		return fmt.Errorf("%w: %s", ErrRefused, whyView), at, nil
	}
	return nil, at, nil
}

// entry makes the entry that a fill under the lease becomes, and its TTL. The
// time is that of Redis when the lease was taken and what has passed here since
// its reply came: behind Redis's clock by the reply's way at most.
func (l Lease) entry(f Fill) (Entry, time.Duration, error) {
	if l.token == "" {
		return Entry{}, 0, errors.New("no lease was taken")
	}
	if f.Version.IsZero() {
		if !l.View.Model {
			return Entry{}, 0, errors.New("the value has no version")
		}
		f.Version = version.At(l.Taken)
	}
	ttl := f.TTL
	if ttl == 0 {
		ttl = l.View.TTL
		if f.Negative {
			ttl = l.View.Negative
		}
		ttl -= rand.N(ttl/jitter + 1)
	}
	if ttl <= 0 {
		return Entry{}, 0, fmt.Errorf("a TTL of %s", ttl)
	}
	saved := l.Taken.Add(time.Since(l.received)).Truncate(time.Millisecond)
	e := Entry{
		View: l.View.Name, Key: l.Key, Negative: f.Negative, Owner: f.Owner, Owned: f.Owned,
		Version: f.Version, Snapshot: f.Snapshot, Body: f.Body,
		Saved: saved, FreshUntil: saved.Add(ttl).Truncate(time.Millisecond), LoadTook: f.LoadTook,
	}
	if e.Negative {
		e.Body = nil
	}
	return e, ttl, nil
}

// jitter is the part of a TTL by which entries that were filled together do not
// expire together: up to a twentieth.
const jitter = 20
