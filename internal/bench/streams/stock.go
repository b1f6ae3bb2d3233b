package streams

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/producers/stream"
)

// stock consumes through watermill's Router and the stock subscriber.
func (b *bed) stock(of int, addr string, handle func(*message.Message) error) contestant {
	return contestant{name: "stock", of: of, do: func(ctx context.Context, done func(int)) error {
		client, err := b.dial(addr, nil)
		if err != nil {
			return err
		}
		subscriber, err := redisstream.NewSubscriber(redisstream.SubscriberConfig{
			Client: client, ConsumerGroup: b.newGroup("stock"), OldestId: "0",
		}, watermill.NopLogger{})
		if err != nil {
			return errors.Join(err, client.Close())
		}
		// The router closes the subscriber, and that its client.
		return route(ctx, subscriber, func(m *message.Message) error {
			err := handle(m)
			done(1)
			return err
		})
	}}
}

// routed consumes through watermill's Router and our subscriber.
func (b *bed) routed(of int, addr string, handle func(*message.Message) error) contestant {
	return contestant{name: "ours", of: of, do: func(ctx context.Context, done func(int)) error {
		subscriber, err := stream.NewSubscriber(b.dialer(addr), stream.NewKeys(prefix), stream.SubscriberOptions{Group: b.newGroup("ours")})
		if err != nil {
			return err
		}
		return route(ctx, subscriber, func(m *message.Message) error {
			err := handle(m)
			done(1)
			return err
		})
	}}
}

// streamOf is the name of a topic's stream, for those who know no topics.
func streamOf(topic string) string { return stream.NewKeys(prefix).Topic(topic) }

// route runs a router with one handler until ctx ends.
func route(ctx context.Context, s message.Subscriber, handle message.NoPublishHandlerFunc) error {
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	name := framed
	if _, stock := s.(*redisstream.Subscriber); stock {
		name = streamOf(framed)
	}
	router.AddConsumerHandler("bench", name, s, handle)
	err = router.Run(ctx)
	return errors.Join(err, s.Close())
}
