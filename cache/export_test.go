package cache

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// Heard returns when the last sign of life was asked for that a reader's link gave:
// what was written before has been heard of.
func (r *Reader) Heard() time.Time { return r.near.began.Add(time.Duration(r.near.proven.Load())) }

// Held returns what a reader keeps in memory.
func (r *Reader) Held() (entries int, bytes int64) { return r.near.held() }

// Batches returns how many batches of reads have ended.
func (r *Reader) Batches() uint64 { return r.pipeline.batches.Load() }

// Alone returns how many a reader has admitted without Redis.
func (r *Reader) Alone() uint64 { return r.allowances.withoutRedis.Load() }

// Ahead returns how many admissions a reader holds that were taken ahead, over or not.
func (r *Reader) Ahead(l *Limit) int {
	k := limitKey{l.Rule, l.Caller}
	s := r.allowances.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.of(k); known != nil {
		return known.left
	}
	return 0
}

// TakeAhead asks the limiter as a process does that takes admissions ahead, and returns
// how many it was given.
func (s *Store) TakeAhead(ctx context.Context, l Limit, asked, later int) (int, error) {
	var cmd *redis.Cmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		cmd = call(ctx, p, &s.scripts.limit, []string{s.keys.rate(l.Rule, l.Caller)}, l.args(nil, asked, later)...)
	})
	if err != nil {
		return 0, err
	}
	r := replyOf(cmd)
	r.int()
	admitted, _ := l.admission(r)
	return admitted, r.err
}

// Deadline returns the context of a worker's batch, and what ends it and begins the next.
func Deadline(in time.Duration) (first context.Context, next func(time.Duration) context.Context) {
	d := newDeadline(context.Background()).next(in)
	return d, func(in time.Duration) context.Context {
		d.end()
		d = d.next(in)
		return d
	}
}

// KeysOfOurs returns a key of each kind that is no entry's, without the prefix.
func KeysOfOurs() []string {
	var k keys
	return []string{
		k.view("v"), k.rate("r", "c"), k.session("s"), k.revoked(), k.revocations(), k.report("i"), k.reports(), k.filled(),
		k.aiCosts("m", "k"), k.aiLine("k"), k.aiScope("s"), k.aiAsked("s"), k.aiForgotten("s"), k.aiFailed("k"), k.aiDropped("k"),
		k.aiBudget("m"), k.aiFlow("k"),
	}
}
