package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/bench/gauge"
)

const putKeys = 20_000

// leased are the leases that a contestant puts under.
type leased map[string]cache.Lease

// lease takes the lease of every key, so that all begin with the same keys.
func (b *bed) lease(into leased) func(context.Context, []string) error {
	return func(ctx context.Context, keys []string) error {
		for some := range slices.Chunk(keys, batch) {
			leases, err := b.store.LeaseAll(ctx, b.view, some, 10*time.Minute)
			if err != nil {
				return err
			}
			for _, l := range leases {
				into[l.Key] = l
			}
		}
		return nil
	}
}

// putAll puts the keys of a batch in one script.
func (b *bed) putAll(ctx context.Context, from leased, keys []string, body []byte) error {
	leases := make([]cache.Lease, len(keys))
	for i, key := range keys {
		leases[i] = from[key]
	}
	filled, err := b.store.PutAll(ctx, made(leases, at(1000, 2), body))
	for _, f := range filled {
		if f.Outcome != cache.Accepted {
			return fmt.Errorf("%s was not put: %s", f.Entry.Key, f.Reason)
		}
	}
	return err
}

// setting stores a body under each key with plain SETs.
func (b *bed) setting(ctx context.Context, keys []string, body []byte, ttl time.Duration) error {
	p := b.client.Pipeline()
	for _, key := range keys {
		p.Set(ctx, name(key), body, ttl)
	}
	_, err := p.Exec(ctx)
	return err
}

// unjudged is a script that stores and compares nothing: what EVAL itself takes.
const unjudged = "for i, key in ipairs(KEYS) do redis.call('PSETEX', key, ARGV[1], ARGV[1 + i]) end"

// storing stores a body under each key by that script.
func (b *bed) storing(ctx context.Context, keys []string, body []byte, ttl time.Duration) error {
	names, args := make([]string, len(keys)), []any{ttl.Milliseconds()}
	for i, key := range keys {
		names[i], args = name(key), append(args, body)
	}
	err := b.client.Eval(ctx, unjudged, names, args...).Err() // Redis has compiled it once
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

// put is to store values, each under its lease.
func put(ctx context.Context, b *bed) ([]gauge.Line, error) {
	body, leases, r := bodyOf(bodySize), leased{}, newResults()
	prepare := b.lease(leases)
	scripts := func(ctx context.Context, keys []string) error { return b.putAll(ctx, leases, keys, body) }
	set := func(ctx context.Context, keys []string) error { return b.setting(ctx, keys, body, ttl) }
	forever := func(ctx context.Context, keys []string) error { return b.setting(ctx, keys, body, 0) }
	bare := func(ctx context.Context, keys []string) error { return b.storing(ctx, keys, body, ttl) }
	err := errors.Join(
		b.race(ctx, r, putKeys, contestant{"scripts", prepare, scripts}, contestant{"SET", prepare, set}, contestant{"SET without a TTL", prepare, forever},
			contestant{"scripts that compare nothing", prepare, bare}),
		b.race(ctx, r, putKeys/10, contestant{"one by one", prepare, oneByOne(scripts)}, contestant{"SET one by one", prepare, oneByOne(set)}),
		b.listening(ctx, func() error { return b.race(ctx, r, putKeys, contestant{"scripts that are heard", prepare, scripts}) }))
	if err != nil {
		return nil, err
	}
	return []gauge.Line{r.line("put, 100 keys a script", "scripts", "SET", .55,
		fmt.Sprintf("values of %d bytes over leased keys that have none; SET with a TTL, 100 in a pipeline", bodySize),
		r.cost("scripts", "SET", "scripts that compare nothing"),
		r.note("scripts that store the body alone and compare nothing", "scripts that compare nothing", "SET"),
		r.note("beside SET without a TTL", "scripts", "SET without a TTL"),
		r.note("one key a script", "one by one", "SET one by one"),
		r.note("where somebody listens for announcements", "scripts that are heard", "SET"))}, nil
}

// listening does something while somebody listens for announcements.
func (b *bed) listening(ctx context.Context, do func() error) error {
	sub := b.client.Subscribe(ctx, prefix+"filled")
	if _, err := sub.Receive(ctx); err != nil {
		return errors.Join(fmt.Errorf("listen for announcements: %w", err), sub.Close())
	}
	sub.Channel() // which reads them
	return errors.Join(do(), sub.Close())
}
