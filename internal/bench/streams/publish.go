package streams

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/gauge"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// published is how many events one call of Publish gets.
const published = 500

// publishing publishes in calls of so many, until all are written.
func (b *bed) publishing(name string, of int, open func() (message.Publisher, error)) contestant {
	messages := changes(0, published, published)
	return contestant{name: name, of: of, do: func(ctx context.Context, done func(int)) error {
		p, err := open()
		if err != nil {
			return err
		}
		to := framed
		if name == "stock" {
			to = streamOf(framed)
		}
		for range b.scaled(of) / published {
			if err := p.Publish(to, messages...); err != nil {
				return errors.Join(err, p.Close())
			}
			done(published)
		}
		<-ctx.Done()
		return p.Close()
	}}
}

func (b *bed) stockPublisher(of int, addr string) contestant {
	return b.publishing("stock", of, func() (message.Publisher, error) {
		client, err := b.dial(addr, nil)
		if err != nil {
			return nil, err
		}
		return redisstream.NewPublisher(redisstream.PublisherConfig{Client: client}, watermill.NopLogger{})
	})
}

func (b *bed) ourPublisher(of int, addr string) contestant {
	return b.publishing("ours", of, func() (message.Publisher, error) {
		return stream.NewPublisher(b.dialer(addr), stream.NewKeys(prefix), stream.PublisherOptions{Wire: stream.WireWatermill})
	})
}

// bareXAdd is a pipeline of XADDs whose arguments are made beforehand.
func (b *bed) bareXAdd(of int) contestant {
	e := change(0, keyOf(0))
	packed := []any{event.FieldID, e.ID, "payload", string(e.Data), "metadata", make([]byte, eventBytes-len(e.ID)-len(e.Data))}
	return contestant{name: "bare", of: of, do: func(ctx context.Context, done func(int)) error {
		for range b.scaled(of) / published {
			if _, err := b.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
				for range published {
					pipe.XAdd(ctx, &redis.XAddArgs{Stream: streamOf(framed), Values: packed})
				}
				return nil
			}); err != nil {
				return err
			}
			done(published)
		}
		<-ctx.Done()
		return nil
	}}
}

// publish is to write events, 500 in one call.
func publish(ctx context.Context, b *bed) ([]gauge.Line, error) {
	r, err := b.race(ctx, b.empty, b.stockPublisher(2*stockEvents, ""), b.ourPublisher(routerEvents, ""), b.bareXAdd(routerEvents))
	if err != nil {
		return nil, err
	}
	return []gauge.Line{r.line("publish, 500 in a call", "stock", 20, r.note("bare", "a bare pipeline of XADDs of the same size"))}, nil
}
