package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Limit allows a caller Count operations at once, and one more after each
// Per/Count: the generic cell rate algorithm (GCRA; ITU-T I.371, annex A), in
// whole microseconds by the clock of Redis. Rounding favours the server.
type Limit struct {
	Caller string
	Rule   string // names the limit; callers are counted for each rule
	Count  int
	Per    time.Duration
}

// Admission is what a limiter decided.
type Admission struct {
	Allowed    bool
	Limit      int           // as asked for
	Remaining  int           // how many more would be allowed now
	Reset      time.Duration // until Remaining is Limit again
	RetryAfter time.Duration // until one is allowed; 0 where Allowed
}

// Admit asks the limiter alone, for what is not a Read.
func (s *Store) Admit(ctx context.Context, l Limit) (Admission, error) {
	sent := time.Now()
	var cmd *redis.Cmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) { cmd = s.addLimit(ctx, p, l) })
	if err != nil {
		return Admission{}, fmt.Errorf("ask the limiter: %w", err)
	}
	return s.admission(cmd, l, sent)
}

// addLimit adds the limiter to a pipeline. A limit that allows nothing at all
// is one of a single operation in a thousand years.
func (s *Store) addLimit(ctx context.Context, p redis.Pipeliner, l Limit) *redis.Cmd {
	count := int64(max(l.Count, 1))
	interval := (max(l.Per.Microseconds(), 1) + count - 1) / count
	return call(ctx, p, &s.scripts.limit, []string{s.keys.rate(l.Rule, l.Caller)}, interval, count)
}

// admission reads the limiter's reply.
func (s *Store) admission(cmd *redis.Cmd, l Limit, sent time.Time) (Admission, error) {
	r := replyOf(cmd)
	a := Admission{Limit: l.Count, Allowed: r.int() == 1, Remaining: int(r.int())}
	a.Reset = time.Duration(r.int()) * time.Microsecond
	a.RetryAfter = time.Duration(r.int()) * time.Microsecond
	now := time.UnixMicro(r.int())
	if r.err != nil {
		return Admission{}, fmt.Errorf("limiter: %w", r.err)
	}
	s.peer.observe(now, sent)
	return a, nil
}
