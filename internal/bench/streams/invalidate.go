package streams

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/consumers"
	"mythiccache/internal/bench/gauge"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// store opens a store beside the streams.
func (b *bed) store(addr string, log zerolog.Logger) (*cache.Store, error) {
	return cache.New(cache.Dial(b.dialer(addr)), cache.Options{Prefix: prefix, Log: log})
}

// invalidating is the program's own way: the batch handler that drops entries. Where
// somebody counts, the store logs what it does.
func (b *bed) invalidating(of int, addr string, count *told) contestant {
	log := zerolog.Nop()
	if count != nil {
		log = zerolog.New(io.Discard).Hook(count)
	}
	return contestant{name: "ours", of: of, do: func(ctx context.Context, done func(int)) error {
		store, err := b.store(addr, log)
		if err != nil {
			return err
		}
		defer store.Close()
		views, err := view.Parse("mythic.yaml", view.Mythic(), func(string) (string, bool) { return "", false })
		if err != nil {
			return err
		}
		invalidator, err := consumers.NewInvalidator(store, views, consumers.InvalidatorOptions{})
		if err != nil {
			return err
		}
		handle := func(ctx context.Context, batch []*message.Message) []error {
			errs := invalidator.Handle(ctx, batch)
			done(len(batch))
			return errs
		}
		consumer, err := stream.NewConsumer(b.dialer(addr), stream.NewKeys(prefix), handle, stream.ConsumerOptions{
			Group: b.newGroup("ours"), Topics: []string{topic},
		})
		if err != nil {
			return err
		}
		return consumer.Run(ctx)
	}}
}

// bareInvalidate runs the store's script once for each key of a batch.
func (b *bed) bareInvalidate(of int, addr string) (contestant, func() error, error) {
	store, err := b.store(addr, zerolog.Nop())
	if err != nil {
		return contestant{}, nil, err
	}
	v := &view.View{Name: viewName}
	return b.bare(topic, of, addr, func(ctx context.Context, entries []redis.XMessage) error {
		newest := make(map[string]version.Version, len(entries))
		for _, entry := range entries {
			key, _ := entry.Values[event.FieldSubject].(string)
			text, _ := entry.Values[event.FieldVersion].(string)
			at, err := version.Parse(text)
			if err != nil {
				return err
			}
			if at.Compare(newest[key]) > 0 {
				newest[key] = at
			}
		}
		all := make([]cache.Change, 0, len(newest))
		for key, at := range newest {
			all = append(all, cache.Change{View: v, Key: key, Version: at})
		}
		_, err := store.Invalidate(ctx, all)
		return err
	}), store.Close, nil
}

// unlinking is the stock subscriber whose handler removes one key a message.
func (b *bed) unlinking(of int, addr string) (contestant, func() error, error) {
	client, err := b.dial(addr, nil)
	if err != nil {
		return contestant{}, nil, err
	}
	return b.stock(of, addr, func(m *message.Message) error {
		return client.Unlink(m.Context(), fmt.Sprintf("%s%s:{%s}", prefix, viewName, m.Metadata[event.FieldSubject])).Err()
	}), client.Close, nil
}

// invalidate is to consume and to drop the entry of each key that changed. There are
// so many keys that few come twice in a batch.
func invalidate(ctx context.Context, b *bed) ([]gauge.Line, error) {
	if err := errors.Join(b.empty(ctx), b.fill(ctx, framed, stockEvents, 10_000, stream.WireWatermill),
		b.fill(ctx, topic, batchEvents, 10_000, stream.WirePlain)); err != nil {
		return nil, err
	}
	stock, closeStock, err := b.unlinking(stockEvents/2, "") //nolint:contextcheck // its handler has the message's
	if err != nil {
		return nil, err
	}
	bare, closeBare, err := b.bareInvalidate(batchEvents, "")
	if err != nil {
		return nil, errors.Join(err, closeStock())
	}
	r, err := b.race(ctx, b.forget, stock, b.invalidating(batchEvents, "", nil), bare)
	if err := errors.Join(err, closeStock(), closeBare()); err != nil {
		return nil, err
	}
	return []gauge.Line{
		r.line("consume and invalidate, batch handler", "stock", 15, "stock: one UNLINK per message"),
		r.line("the same", "bare", .7, "bare: a loop that runs the same script"),
	}, nil
}

// batchEvents is how many events the batch handlers get.
const batchEvents = 200_000

// forget removes the fences that the run before has left.
func (b *bed) forget(ctx context.Context) error {
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		var names []string
		var err error
		if names, cursor, err = b.client.Scan(ctx, cursor, prefix+viewName+":*", 1000).Result(); err != nil {
			return err
		}
		if len(names) > 0 {
			if err := b.client.Unlink(ctx, names...).Err(); err != nil {
				return err
			}
		}
	}
	return nil
}
