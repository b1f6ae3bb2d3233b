package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"mythiccache/cache"
	"mythiccache/internal/bench/gauge"
)

const invalidateKeys = 20_000

// filled puts an entry under every key.
func (b *bed) filled(ctx context.Context, keys []string) error {
	leases := leased{}
	if err := b.lease(leases)(ctx, keys); err != nil {
		return err
	}
	body := bodyOf(bodySize)
	for some := range slices.Chunk(keys, batch) {
		if err := b.putAll(ctx, leases, some, body); err != nil {
			return err
		}
	}
	return nil
}

// outdate applies a newer change to each key of a batch.
func (b *bed) outdate(ctx context.Context, keys []string) error {
	changes := make([]cache.Change, len(keys))
	newer := at(2000, 2).Version()
	for i, key := range keys {
		changes[i] = cache.Change{View: b.view, Key: key, Version: newer}
	}
	_, err := b.store.Invalidate(ctx, changes)
	return err
}

// unlink removes each key of a batch.
func (b *bed) unlink(ctx context.Context, keys []string) error {
	p := b.client.Pipeline()
	for _, key := range keys {
		p.Unlink(ctx, name(key))
	}
	_, err := p.Exec(ctx)
	return err
}

// invalidate is to remove entries that are there, and, below the table, others.
func invalidate(ctx context.Context, b *bed) ([]gauge.Line, error) {
	nothing := func(context.Context, []string) error { return nil }
	held := func(ctx context.Context, keys []string) error { return b.lease(leased{})(ctx, keys) }
	r := newResults()
	err := errors.Join(
		b.race(ctx, r, invalidateKeys,
			contestant{"scripts", b.filled, b.outdate}, contestant{"UNLINK", b.filled, b.unlink},
			contestant{"scripts over no keys", nothing, b.outdate}, contestant{"UNLINK of no keys", nothing, b.unlink},
			contestant{"scripts over leases", held, b.outdate}, contestant{"UNLINK of leases", held, b.unlink}),
		b.race(ctx, r, invalidateKeys/10,
			contestant{"one by one", b.filled, oneByOne(b.outdate)}, contestant{"UNLINK one by one", b.filled, oneByOne(b.unlink)}))
	if err != nil {
		return nil, err
	}
	return []gauge.Line{r.line("invalidate, 100 keys a script", "scripts", "UNLINK", .37,
		fmt.Sprintf("entries of %d bytes that are there; 100 UNLINKs in a pipeline, which leave no fence", bodySize),
		r.cost("scripts", "UNLINK"),
		r.note("keys that are not there", "scripts over no keys", "UNLINK of no keys"),
		r.note("leased keys without a value", "scripts over leases", "UNLINK of leases"),
		r.note("one key a script", "one by one", "UNLINK one by one"))}, nil
}
