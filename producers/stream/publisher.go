package stream

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"mythiccache/producers/event"
)

// PublisherOptions are the choices of a Publisher. The zero value is usable.
type PublisherOptions struct {
	Wire    Wire // of Publish; Append always writes WirePlain
	Log     zerolog.Logger
	Metrics prometheus.Registerer // nil: none
}

// Publisher writes events into the streams. It is safe for concurrent use.
type Publisher struct {
	client redis.UniversalClient
	keys   Keys
	o      PublisherOptions
}

// NewPublisher makes a publisher with a client of its own; Redis need not be up.
func NewPublisher(dial Dial, keys Keys, o PublisherOptions) (*Publisher, error) {
	client, err := dial(nil)
	if err != nil {
		return nil, err
	}
	return &Publisher{client: client, keys: keys, o: o}, nil
}

// Publish writes messages into the stream of a topic, up to a thousand of them
// in one transaction: all or none.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error { return nil }

// Append writes events, each into the stream of its own topic, and returns the
// ids of their entries in the order of the events. An event that is malformed is
// refused before anything is written.
func (p *Publisher) Append(ctx context.Context, events ...event.Event) (ids []string, err error) {
	return nil, nil
}

// Close closes the client. It may be called again.
func (p *Publisher) Close() error { return p.client.Close() }
