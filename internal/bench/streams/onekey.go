package streams

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/rs/zerolog"

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
	var told told
	c := b.invalidating(b.scaled(oneKeyEvents), "", &told)
	var batches atomic.Int64
	do := c.do
	c.do = func(ctx context.Context, done func(int)) error {
		return do(ctx, func(n int) { batches.Add(1); done(n) })
	}
	if _, err := c.run(ctx); err != nil {
		return nil, err
	}
	worked := told.Load()
	return []gauge.Line{{
		Figure: "10,000 events of one key", Reach: "worked on once per batch", Measured: fmt.Sprintf("%d times in %d batches", worked, batches.Load()), Reached: worked <= batches.Load(),
	}}, nil
}

// told counts the keys that a store invalidates, by the line that it logs of each.
type told struct{ atomic.Int64 }

// Run implements zerolog.Hook.
func (t *told) Run(_ *zerolog.Event, _ zerolog.Level, message string) {
	if message == "cache invalidated" {
		t.Add(1)
	}
}
