package stream

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// BatchHandler handles messages together. It returns nil when all are done, or
// one error per message, nil for each that is done. It neither acks nor nacks.
// ErrReject and ErrPause, wrapped, say more about a failure.
//
// The messages' events are well-formed; EventOf returns each without an error.
type BatchHandler func(ctx context.Context, batch []*message.Message) []error

// ConsumerOptions are the choices of a Consumer. Group and Topics are required.
type ConsumerOptions struct {
	Group         string
	Name          string        // of this consumer in its group; random where empty
	Topics        []string      // two consumers of a group may have different ones
	BatchSize     int           // messages in one call of the handler; 500
	Concurrency   int           // calls of the handler at a time; 4
	MaxDeliveries int           // then an event that fails is a dead letter; 8
	Backoff       time.Duration // before the second delivery, doubled for each that follows; 1 s
	ClaimAfter    time.Duration // without a sign of life, others take over a consumer's entries; 5 s
	Grace         time.Duration // for running handlers after Run's context has ended, then theirs ends; 20 s
	Log           zerolog.Logger
	Metrics       prometheus.Registerer // nil: none
}

// Consumer reads streams as a member of a group and calls a BatchHandler.
type Consumer struct{}

// NewConsumer checks the options and makes a client of its own. Redis need not
// be up.
func NewConsumer(dial Dial, keys Keys, h BatchHandler, o ConsumerOptions) (*Consumer, error) {
	return &Consumer{}, nil
}

// Run consumes until ctx ends; then it stops reading, waits for the handlers
// that run, acknowledges what they did, and returns nil. It may be called once.
func (c *Consumer) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Ready returns nil while the group is being read, or what is in the way.
func (c *Consumer) Ready() error { return nil }
