package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"mythiccache/cache"
	"mythiccache/internal/bench/gauge"
)

const (
	memoryKeys = 50_000
	openXids   = 8   // transactions in progress
	mostOver   = 200 // bytes
)

// memory is what Redis takes for an entry beyond the bytes of its value. Bodies are
// of all lengths, since the allocator rounds up.
func memory(ctx context.Context, b *bed) ([]gauge.Line, error) {
	keys := keysOf(b.scaled(memoryKeys))
	size := func(i int) int { return 200 + i*7%1800 }
	ours, err := b.taken(ctx, keys, size, func(i int, keys []string) error {
		leases := leased{}
		if err := b.lease(leases)(ctx, keys); err != nil {
			return err
		}
		var all []cache.Made
		for j, key := range keys {
			all = append(all, made([]cache.Lease{leases[key]}, at(1000, openXids), bodyOf(size(i+j)))...)
		}
		_, err := b.store.PutAll(ctx, all)
		return err
	})
	if err != nil {
		return nil, err
	}
	plain, err := b.taken(ctx, keys, size, func(i int, keys []string) error {
		p := b.client.Pipeline()
		for j, key := range keys {
			p.Set(ctx, name(key), bodyOf(size(i+j)), ttl)
		}
		_, err := p.Exec(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return []gauge.Line{{
		Figure: "memory per entry over the value", Reach: fmt.Sprintf("≤ %d bytes", mostOver), Measured: fmt.Sprintf("%.0f bytes", ours-plain),
		Baseline: fmt.Sprintf("plain strings %.0f bytes over their bodies", plain), Reached: ours-plain <= mostOver,
		Notes: []string{fmt.Sprintf("over the body alone, the key's name, its TTL and Redis's tables included: %.0f bytes; %d transactions in progress, %d keys", ours, openXids, len(keys))},
	}}, nil
}

// taken is how much memory Redis takes for each key beyond its body.
func (b *bed) taken(ctx context.Context, keys []string, size func(int) int, fill func(i int, keys []string) error) (float64, error) {
	if err := b.empty(ctx); err != nil {
		return 0, err
	}
	before, err := b.used(ctx)
	if err != nil {
		return 0, err
	}
	bodies, done := 0, 0
	for some := range slices.Chunk(keys, batch) {
		if err := fill(done, some); err != nil {
			return 0, err
		}
		for i := range some {
			bodies += size(done + i)
		}
		done += len(some)
	}
	after, err := b.used(ctx)
	return float64(after-before-int64(bodies)) / float64(len(keys)), err
}

// used is the memory of Redis, without what clients take.
func (b *bed) used(ctx context.Context) (int64, error) {
	info, err := b.client.InfoMap(ctx, "memory").Result()
	if err != nil {
		return 0, fmt.Errorf("ask Redis for its memory: %w", err)
	}
	var of [2]int64
	for i, name := range []string{"used_memory", "mem_clients_normal"} {
		if of[i], err = strconv.ParseInt(info["Memory"][name], 10, 64); err != nil {
			return 0, fmt.Errorf("ask Redis for its memory: %s: %w", name, err)
		}
	}
	return of[0] - of[1], nil
}
