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
	Alone      bool          // a Reader's process decided without Redis, which did not answer
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

// addLimit adds the limiter to a pipeline.
func (s *Store) addLimit(ctx context.Context, p redis.Pipeliner, l Limit) *redis.Cmd {
	return call(ctx, p, &s.scripts.limit, []string{s.keys.rate(l.Rule, l.Caller)}, l.args(nil, 1, 0)...)
}

// args appends what limit.lua takes for one key. A limit that allows nothing at
// all is one of a single operation in a thousand years.
func (l Limit) args(args []any, asked, later int) []any {
	return append(args, l.interval().Microseconds(), l.burst(), asked, later, l.life().Microseconds())
}

// burst is how many operations are allowed at once.
func (l Limit) burst() int64 { return int64(max(l.Count, 1)) }

// interval is the time between two operations at the rate, in whole microseconds.
func (l Limit) interval() time.Duration {
	count := l.burst()
	return time.Duration((max(l.Per.Microseconds(), 1)+count-1)/count) * time.Microsecond
}

// admission reads the limiter's reply for one operation.
func (s *Store) admission(cmd *redis.Cmd, l Limit, sent time.Time) (Admission, error) {
	r := replyOf(cmd)
	now := time.UnixMicro(r.int())
	admitted, a := l.admission(r)
	if r.err != nil {
		return Admission{}, fmt.Errorf("limiter: %w", r.err)
	}
	a.Allowed = admitted == 1
	s.peer.observe(now, sent)
	return a, nil
}

// admission takes what limit.lua says of one key: how many are admitted, and what
// holds after that.
func (l Limit) admission(r *reply) (admitted int, a Admission) {
	admitted = int(r.int())
	a = Admission{Limit: l.Count, Remaining: int(r.int())}
	a.Reset = time.Duration(r.int()) * time.Microsecond
	a.RetryAfter = time.Duration(r.int()) * time.Microsecond
	return admitted, a
}
