package cache

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// sweepBatch is how many revocations are removed at once.
const sweepBatch = 500

// ManyRevocations is how many revocations are worth a warning. Each takes some 400
// bytes of Redis until it may be forgotten.
const ManyRevocations = 1_000_000

// SweepRevocations removes revocations that need not be kept any longer, sweepBatch at
// most, and returns how many it has removed, whether there are more of them, and how
// many are left in all. Any number of processes may do so at once.
func (s *Store) SweepRevocations(ctx context.Context) (swept int, more bool, left int64, err error) {
	now := strconv.FormatInt(s.peer.now().UnixMilli(), 10)
	over, err := s.client.ZRangeArgs(ctx, redis.ZRangeArgs{
		Key: s.keys.revocations(), Start: "-inf", Stop: now, ByScore: true, Count: sweepBatch,
	}).Result()
	if err != nil {
		return 0, false, 0, fmt.Errorf("look for revocations that are over: %w", err)
	}
	keys, args := []string{s.keys.revocations()}, []any{now}
	for _, id := range over {
		keys, args = append(keys, s.keys.session(id)), append(args, id)
	}
	var removed *redis.Cmd
	var count *redis.IntCmd
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		removed = call(ctx, p, &s.scripts.sweep, keys, args...)
		count = p.ZCard(ctx, s.keys.revocations())
	})
	if err != nil {
		return 0, false, 0, fmt.Errorf("sweep revocations: %w", err)
	}
	if swept, err = removed.Int(); err != nil {
		return 0, false, 0, fmt.Errorf("sweep revocations: %w", err)
	}
	return swept, len(over) == sweepBatch, count.Val(), nil
}

// CountRevocations returns how many revocations a Redis keeps under a prefix.
func CountRevocations(ctx context.Context, client redis.UniversalClient, prefix string) (int64, error) {
	n, err := client.ZCard(ctx, newKeys(prefix).revocations()).Result()
	if err != nil {
		return 0, fmt.Errorf("count revocations: %w", err)
	}
	return n, nil
}
