package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// BatchHandler handles messages together. It returns nil when all are done, or
// one error per message, nil for each that is done. It neither acks nor nacks.
// ErrReject and ErrPause, wrapped, say more about a failure.
//
// The messages' events are well-formed: EventOf returns each without an error.
type BatchHandler func(ctx context.Context, batch []*message.Message) []error

// ConsumerOptions are the choices of a Consumer. Group and Topics are required.
type ConsumerOptions struct {
	Group         string
	Name          string        // of this consumer, unique in its group; random where empty
	Topics        []string      // two consumers of a group may have different ones
	BatchSize     int           // messages in one call of the handler; 500
	Concurrency   int           // calls of the handler at a time; 4
	Timeout       time.Duration // of one call of the handler: then its context ends, and soon after it is given up; 1 min
	MaxDeliveries int           // then an event that fails is a dead letter; 8
	Backoff       time.Duration // before the second delivery, doubled for each that follows; 1 s
	ClaimAfter    time.Duration // without a sign of life, others take over a consumer's entries; 5 s
	Grace         time.Duration // for running handlers after Run's context has ended, then theirs ends; 20 s
	Log           zerolog.Logger
	Metrics       prometheus.Registerer // nil: none
}

// Consumer reads streams as a member of a group and calls a BatchHandler.
type Consumer struct {
	feed    *feed
	handler BatchHandler
}

// NewConsumer checks the options and makes a client of its own. Redis need not
// be up.
func NewConsumer(dial Dial, keys Keys, h BatchHandler, o ConsumerOptions) (*Consumer, error) {
	if h == nil {
		return nil, fmt.Errorf("group %s has no handler", o.Group)
	}
	if o.Concurrency < 0 {
		return nil, fmt.Errorf("group %s: Concurrency is negative", o.Group)
	}
	orElse(&o.Concurrency, 4)
	measured, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("group %s: register metrics: %w", o.Group, err)
	}
	fo := feedOptions{
		group: o.Group, name: o.Name, topics: slices.Clone(o.Topics), events: true,
		batchSize: o.BatchSize, timeout: o.Timeout, maxDeliveries: o.MaxDeliveries, backoff: o.Backoff,
		claimAfter: o.ClaimAfter, grace: o.Grace, log: o.Log, metrics: measured,
	}
	if err := fo.check(); err != nil {
		return nil, err
	}
	c := &Consumer{handler: h}
	c.feed, err = newFeed(dial, keys, o.Concurrency, fo)
	return c, err
}

// Run consumes until ctx ends; then it stops reading, waits for the handlers
// that run, acknowledges what they did, and returns nil. It may be called once.
func (c *Consumer) Run(ctx context.Context) error {
	f := c.feed
	handling, settling, stop := f.lives(ctx)
	defer stop()
	var handlers sync.WaitGroup
	f.room = func() int { return f.o.batchSize }
	f.deliver = func(ctx context.Context, ds []*delivery) {
		for batch := range slices.Chunk(ds, f.o.batchSize) {
			if !f.start(ctx) {
				f.handBack(settling, batch)
				continue
			}
			handlers.Go(func() {
				outcomes, lost := c.handle(handling, batch)
				f.settle(settling, outcomes)
				f.giveWhenOver(lost)
			})
		}
	}
	f.run(ctx, handlers.Wait)
	return nil
}

// Ready returns nil while the group is being read, or what is in the way.
func (c *Consumer) Ready() error { return c.feed.ready() }

// handle has the handler do one batch and returns how it went, and the calls that
// it gave up.
func (c *Consumer) handle(ctx context.Context, batch []*delivery) ([]outcome, lostCalls) {
	begun := time.Now()
	errs, lost := c.bounded(ctx, batch)
	var p *panicked
	if len(batch) > 1 && errors.As(errs[0], &p) {
		// One of them made it panic. Alone, the others need not pay for it.
		for i := range batch {
			if errs[i] = errHandedBack; len(lost) > 0 {
				continue // to another call, since one hangs in this one's place
			}
			var alone []error
			alone, lost = c.bounded(ctx, batch[i:i+1])
			errs[i] = alone[0]
		}
	}
	outcomes := make([]outcome, len(batch))
	failed := 0
	for i, d := range batch {
		outcomes[i] = outcome{d, stopped(ctx, errs[i])}
		if errs[i] != nil {
			failed++
		}
	}
	took := time.Since(begun)
	c.feed.o.metrics.handled(c.feed.o.group, len(batch), took)
	c.feed.o.log.Debug().Int("messages", len(batch)).Int("failed", failed).Dur("took", took).Msg("batch handled")
	return outcomes, lost
}

// bounded calls the handler for as long as it may take. A call that goes on for a
// while after its context has ended is given up: its messages have failed, whatever
// it does with them, and it keeps its place among the Concurrency ones.
func (c *Consumer) bounded(ctx context.Context, batch []*delivery) ([]error, lostCalls) {
	inTime, cancel := context.WithTimeout(ctx, c.feed.o.timeout)
	messages := make([]*message.Message, len(batch))
	for i, d := range batch {
		d.attach(inTime)
		messages[i] = d.message
	}
	called := make(chan []error, 1)
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer cancel()
		called <- c.call(inTime, messages)
	}()
	select {
	case errs := <-called:
		return errs, nil
	case <-inTime.Done():
	}
	select {
	case errs := <-called:
		return errs, nil
	case <-time.After(lingerFor):
		errs := make([]error, len(batch))
		for i, d := range batch {
			errs[i] = c.feed.gaveUp(ctx, d, len(batch) == 1)
		}
		return errs, lostCalls{over}
	}
}

// call calls the handler and returns one error per message, whatever it does.
func (c *Consumer) call(ctx context.Context, messages []*message.Message) (errs []error) {
	defer func() {
		if r := recover(); r != nil {
			p := &panicked{value: r, stack: debug.Stack()}
			c.feed.o.log.Error().Err(p).Bytes("stack", p.stack).Int("messages", len(messages)).Msg("handler panicked")
			errs = slices.Repeat([]error{p}, len(messages))
		}
	}()
	errs = c.handler(ctx, messages)
	switch len(errs) {
	case len(messages):
		return slices.Clone(errs) // the handler may keep its own
	case 0:
		return make([]error, len(messages))
	default:
		err := fmt.Errorf("handler returned %d outcomes for %d messages", len(errs), len(messages))
		return slices.Repeat([]error{err}, len(messages))
	}
}

// stopped tells a failure from a handler that was told to end.
func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return errHandedBack
	}
	return err
}
