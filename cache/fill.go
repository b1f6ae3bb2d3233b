package cache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

// Lease is the right to fill a key, which one holder has at a time.
type Lease struct {
	View  *view.View
	Key   string
	Taken time.Time // by the clock of Redis, before the snapshot of what is put
	Until time.Time // by the clock of Redis

	token    string
	runID    string
	received time.Time // when the reply came, by our own clock
}

// Lease takes the lease of a key for a time, whether or not it has a value.
// Take it before the snapshot. It fails with ErrLeased where another has it.
func (s *Store) Lease(ctx context.Context, v *view.View, key string, life time.Duration) (Lease, error) {
	started := time.Now()
	token := make([]byte, tokenLen)
	_, _ = rand.Read(token) // never fails, by its promise
	l := Lease{View: v, Key: key, token: string(token)}
	var cmd *redis.Cmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		cmd = call(ctx, p, &s.scripts.lease, []string{s.keys.entry(v.Name, key)}, l.token, life.Milliseconds(), s.fenceTTL.Milliseconds())
	})
	if err != nil {
		return Lease{}, fmt.Errorf("lease %s: %w", v.Name, err)
	}
	r := replyOf(cmd)
	granted := r.int() == 1
	l.Taken = time.UnixMicro(r.int())
	l.Until = time.UnixMilli(r.int())
	l.runID = r.text()
	if r.err != nil {
		return Lease{}, fmt.Errorf("lease %s: %w", v.Name, r.err)
	}
	l.received = time.Now()
	s.peer.observe(l.Taken, started)
	s.note("lease", v.Name, key, time.Since(started)).Bool("granted", granted).Msg("cache lease")
	if !granted {
		return Lease{}, fmt.Errorf("lease %s until %s: %w", v.Name, l.Until.UTC().Format(time.RFC3339Nano), ErrLeased)
	}
	return l, nil
}

// Renew gives the holder more time. It fails with ErrLost where the lease ended
// and another took it, or an event took it away, or Redis was restarted.
func (s *Store) Renew(ctx context.Context, l Lease, life time.Duration) (Lease, error) {
	var cmd *redis.Cmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		cmd = call(ctx, p, &s.scripts.renew, []string{s.keys.entry(l.View.Name, l.Key)}, l.token, l.runID, life.Milliseconds(), s.fenceTTL.Milliseconds())
	})
	if err != nil {
		return l, fmt.Errorf("renew the lease of %s: %w", l.View.Name, err)
	}
	until, err := cmd.Int64()
	if err != nil {
		return l, fmt.Errorf("renew the lease of %s: %w", l.View.Name, err)
	}
	if until == 0 {
		return l, fmt.Errorf("renew the lease of %s: %w", l.View.Name, ErrLost)
	}
	l.Until = time.UnixMilli(until)
	return l, nil
}

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
}

// Put stores what was made under a lease, ends the lease, and announces the
// entry to those who wait for it. It fails with ErrRefused where key or view
// have seen something newer, the lease is gone, or Redis was restarted since
// the lease was taken; the entry is then returned and announced all the same,
// to those who asked before the lease was taken.
func (s *Store) Put(ctx context.Context, l Lease, f Fill) (Entry, error) {
	started := time.Now()
	e, ttl, err := l.entry(f)
	if err != nil {
		return Entry{}, fmt.Errorf("put %s: %w", l.View.Name, err)
	}
	value, err := appendEntry(make([]byte, 0, headerLen+len(e.Body)+len(e.Owner)+64), e, runOf(l.runID))
	if err != nil {
		return Entry{}, fmt.Errorf("put %s: %w", l.View.Name, err)
	}
	keep := ttl
	if !e.Negative {
		e.ETag = etag(value[len(value)-len(e.Body)-etagLen : len(value)-len(e.Body)])
		keep += s.staleFor
	}
	judged, at, err := s.put(ctx, l, e, value, keep)
	if err != nil {
		return Entry{}, fmt.Errorf("put %s: %w", l.View.Name, err)
	}
	filled := Filled{Entry: e, Outcome: Accepted, Taken: l.Taken, At: at}
	if judged != nil {
		filled.Outcome, filled.Reason = Refused, judged.Error()
	}
	s.notePut(filled, len(value), time.Since(started))
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
		return fmt.Errorf("%w: the view has no key", ErrRefused), at, nil
	case e.Version.Compare(whole.fence) < 0:
		return fmt.Errorf("%w: the whole view has changed since", ErrRefused), at, nil
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
		ttl -= time.Duration(mathrand.Int64N(int64(ttl)/jitter + 1))
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

// Abandon gives the lease back, so that another may take it at once, and tells
// those who wait for the key that it was not filled, and why. The reason is for
// them: no secrets.
func (s *Store) Abandon(ctx context.Context, l Lease, reason string) error {
	var cmd *redis.Cmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		cmd = call(ctx, p, &s.scripts.abandon, []string{s.keys.entry(l.View.Name, l.Key)}, l.token)
	})
	if err != nil {
		return fmt.Errorf("abandon the lease of %s: %w", l.View.Name, err)
	}
	at, err := cmd.Int64()
	if err != nil {
		return fmt.Errorf("abandon the lease of %s: %w", l.View.Name, err)
	}
	s.log.Debug().Str("view", l.View.Name).Str("key", l.Key).Str("reason", reason).Msg("cache lease abandoned")
	s.announce(ctx, Filled{
		Entry: Entry{View: l.View.Name, Key: l.Key}, Outcome: Failed,
		Taken: l.Taken, At: time.UnixMicro(at), Reason: reason,
	})
	return nil
}

// holder names who holds a lease, for people.
func holder(token string) string { return hex.EncodeToString([]byte(token)) }
