package streams

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"mythiccache/internal/bench/gauge"
	"mythiccache/producers/stream"
)

// oneKeyEvents is how many events of one key there are.
const oneKeyEvents = 10_000

// oneKey counts how often the store is told of a key that all events are of.
func oneKey(ctx context.Context, b *bed) ([]gauge.Line, error) {
	if err := errors.Join(b.empty(ctx), b.fill(ctx, topic, oneKeyEvents, 1, stream.WirePlain)); err != nil {
		return nil, err
	}
	if err := b.client.ConfigResetStat(ctx).Err(); err != nil {
		return nil, err
	}
	c := b.invalidating(b.scaled(oneKeyEvents), "")
	var batches atomic.Int64
	do := c.do
	c.do = func(ctx context.Context, done func(int)) error {
		return do(ctx, func(n int) { batches.Add(1); done(n) })
	}
	if _, err := c.run(ctx); err != nil {
		return nil, err
	}
	worked, err := b.calls(ctx, "set") // the one command of the script that writes
	if err != nil {
		return nil, err
	}
	return []gauge.Line{{
		Figure: "10,000 events of one key", Reach: "worked on once per batch", Measured: fmt.Sprintf("%d times in %d batches", worked, batches.Load()), Reached: worked <= batches.Load(),
	}}, nil
}

// calls is how often Redis did a command, in scripts too, since its statistics were
// reset.
func (b *bed) calls(ctx context.Context, command string) (int64, error) {
	info, err := b.client.Info(ctx, "commandstats").Result()
	if err != nil {
		return 0, err
	}
	_, line, found := strings.Cut(info, "cmdstat_"+command+":calls=")
	if !found {
		return 0, nil
	}
	var n int64
	_, err = fmt.Sscanf(line, "%d", &n)
	return n, err
}
