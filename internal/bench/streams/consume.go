package streams

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/gauge"
	"mythiccache/producers/stream"
)

// How many events the contestants get: so many that each takes a second or more.
const (
	stockEvents  = 20_000
	routerEvents = 300_000
	bareEvents   = 400_000
)

func handleNothing(*message.Message) error { return nil }

func readNothing(context.Context, []redis.XMessage) error { return nil }

// consume is to read and to acknowledge, with a handler that does nothing.
func consume(ctx context.Context, b *bed) ([]gauge.Line, error) {
	if err := errors.Join(b.empty(ctx), b.fill(ctx, framed, bareEvents, 10_000, stream.WireWatermill)); err != nil {
		return nil, err
	}
	r, err := b.race(ctx, nil, b.stock(stockEvents, "", handleNothing), b.routed(routerEvents, "", handleNothing), b.bare(framed, bareEvents, "", readNothing))
	if err != nil {
		return nil, err
	}
	return []gauge.Line{r.line("consume through the Router", "stock", 11, r.note("bare", "a bare loop without a Router"))}, nil
}
