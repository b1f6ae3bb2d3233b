package streams

import (
	"context"
	"errors"
	"time"

	"mythiccache/internal/bench/gauge"
	"mythiccache/producers/stream"
)

// farAway is the round trip of a Redis in another zone.
const farAway = 2500 * time.Microsecond

// far is to consume and to publish where each round trip takes 2.5 ms.
func far(ctx context.Context, b *bed) ([]gauge.Line, error) {
	if err := errors.Join(b.empty(ctx), b.fill(ctx, framed, routerEvents, 10_000, stream.WireWatermill)); err != nil {
		return nil, err
	}
	way, err := newDelay(b.redis.Port, farAway/2)
	if err != nil {
		return nil, err
	}
	consumed, err := b.race(ctx, nil, b.stock(stockEvents/50, way.addr, handleNothing), b.routed(routerEvents/3, way.addr, handleNothing))
	if err != nil {
		return nil, errors.Join(err, way.close())
	}
	// In calls of 500, of which stock makes 500 round trips each.
	published, err := b.race(ctx, b.empty, b.stockPublisher(published, way.addr), b.ourPublisher(routerEvents/3, way.addr))
	if err := errors.Join(err, way.close()); err != nil {
		return nil, err
	}
	return []gauge.Line{
		consumed.line("consume through the Router at 2.5 ms", "stock", 45),
		published.line("publish at 2.5 ms, 500 in a call", "stock", 45),
	}, nil
}
