package cache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

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
// Take it before the snapshot. It fails with ErrLeased where another has it, or
// nobody may yet (Fill.Pause).
func (s *Store) Lease(ctx context.Context, v *view.View, key string, life time.Duration) (Lease, error) {
	return s.lease(ctx, v, key, life)
}

// LeaseSince is Lease for who has looked at the key, and seen this entry or, where
// it is zero, none. It fails with ErrOvertaken where another value is there by now:
// who looked before it was put need not make it again.
func (s *Store) LeaseSince(ctx context.Context, v *view.View, key string, life time.Duration, seen Entry) (Lease, error) {
	return s.lease(ctx, v, key, life, valueOf(seen))
}

// valueOf tells one value of a key from another, as value_of in entry.lua does.
func valueOf(e Entry) []byte {
	if e.Saved.IsZero() {
		return nil
	}
	return appendMillis([]byte(e.Version.String()), e.Saved)
}

// lease runs lease.lua. What was seen, where there is anything to say of it, is the
// last of its arguments.
func (s *Store) lease(ctx context.Context, v *view.View, key string, life time.Duration, seen ...any) (Lease, error) {
	started := time.Now()
	token := make([]byte, tokenLen)
	_, _ = rand.Read(token) // never fails, by its promise
	l := Lease{View: v, Key: key, token: string(token)}
	var cmd *redis.Cmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		args := append([]any{l.token, life.Milliseconds(), s.fenceTTL.Milliseconds()}, seen...)
		cmd = call(ctx, p, &s.scripts.lease, []string{s.keys.entry(v.Name, key)}, args...)
	})
	if err != nil {
		return Lease{}, fmt.Errorf("lease %s: %w", v.Name, err)
	}
	r := replyOf(cmd)
	verdict := r.int()
	l.Taken = time.UnixMicro(r.int())
	l.Until = time.UnixMilli(r.int())
	l.runID = r.text()
	if r.err != nil {
		return Lease{}, fmt.Errorf("lease %s: %w", v.Name, r.err)
	}
	l.received = time.Now()
	s.peer.observe(l.Taken, started)
	took := s.observe("lease", started)
	s.log.Debug().Str("view", v.Name).Str("key", key).Dur("took", took).Bool("granted", verdict == leaseGranted).Msg("cache lease")
	switch verdict {
	case leaseGranted:
		return l, nil
	case leaseOvertaken:
		return Lease{}, fmt.Errorf("lease %s: %w", v.Name, ErrOvertaken)
	default:
		return Lease{}, fmt.Errorf("lease %s until %s: %w", v.Name, l.Until.UTC().Format(time.RFC3339Nano), ErrLeased)
	}
}

// What lease.lua answers, but for 0.
const (
	leaseGranted   = 1
	leaseOvertaken = 2
)

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

// Abandon gives the lease back, so that another may take it at once, and tells
// those who wait for the key that it was not filled, and why. The reason is for
// them: no secrets.
func (s *Store) Abandon(ctx context.Context, l Lease, reason string) error {
	return s.GiveUp(ctx, l, GivenUp{Reason: reason})
}

// GivenUp says how a lease ends that brought no value.
type GivenUp struct {
	Reason string        // for those who wait, and for the log: no secrets
	Pause  time.Duration // for how long nobody is given the lease again, in milliseconds
	Quiet  bool          // nobody who waits is told, since what was given up was not made for them
}

// GiveUp is Abandon in all its forms.
func (s *Store) GiveUp(ctx context.Context, l Lease, g GivenUp) error {
	var cmd *redis.Cmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		cmd = call(ctx, p, &s.scripts.abandon, []string{s.keys.entry(l.View.Name, l.Key)}, l.token, g.Pause.Milliseconds())
	})
	if err != nil {
		return fmt.Errorf("abandon the lease of %s: %w", l.View.Name, err)
	}
	at, err := cmd.Int64()
	if err != nil {
		return fmt.Errorf("abandon the lease of %s: %w", l.View.Name, err)
	}
	s.log.Debug().Str("view", l.View.Name).Str("key", l.Key).Str("reason", g.Reason).Msg("cache lease abandoned")
	if g.Quiet {
		return nil
	}
	s.announce(ctx, Filled{
		Entry: Entry{View: l.View.Name, Key: l.Key}, Outcome: Failed,
		Taken: l.Taken, At: time.UnixMicro(at), Reason: g.Reason,
	})
	return nil
}

// holder names who holds a lease, for people.
func holder(token string) string { return hex.EncodeToString([]byte(token)) }
