package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// SubscriberOptions are the choices of a Subscriber. Group is required.
type SubscriberOptions struct {
	Group         string
	Name          string        // of this consumer, unique in its group; random where empty
	BatchSize     int           // entries in one read; 500
	InFlight      int           // messages of one subscription that wait for their ack at a time; 1000
	Timeout       time.Duration // for the answer to a message: then its context ends, and soon after it has failed; 1 min
	MaxDeliveries int           // then an event that fails is a dead letter; 8
	Backoff       time.Duration // before the second delivery, doubled for each that follows; 1 s
	ClaimAfter    time.Duration // without a sign of life, others take over a consumer's entries; 5 s
	Grace         time.Duration // for unanswered messages after the end of a subscription, then their contexts end; 20 s
	Log           zerolog.Logger
	Metrics       prometheus.Registerer // nil: none
}

// Subscriber is a message.Subscriber that reads and acknowledges in batches. A
// Nack parks the message; see RecordFailure.
type Subscriber struct {
	dial     Dial
	keys     Keys
	o        SubscriberOptions
	measured *metrics
	running  sync.WaitGroup // subscriptions

	mu     sync.Mutex
	closed bool
	feeds  map[*feed]context.CancelFunc // of the subscriptions that run
	counts map[string]int               // subscriptions so far, by topic
}

// NewSubscriber checks the options. Redis need not be up.
func NewSubscriber(dial Dial, keys Keys, o SubscriberOptions) (*Subscriber, error) {
	measured, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("group %s: register metrics: %w", o.Group, err)
	}
	if o.InFlight < 0 {
		return nil, fmt.Errorf("group %s: InFlight is negative", o.Group)
	}
	orElse(&o.InFlight, 1000)
	if o.Name == "" {
		o.Name = watermill.NewShortUUID()
	}
	s := &Subscriber{dial: dial, keys: keys, o: o, measured: measured, feeds: map[*feed]context.CancelFunc{}, counts: map[string]int{}}
	fo := s.feedOptions("any")
	if err := fo.check(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Subscriber) feedOptions(topic string) feedOptions {
	o := s.o
	return feedOptions{
		group: o.Group, name: o.Name, topics: []string{topic},
		batchSize: o.BatchSize, timeout: o.Timeout, maxDeliveries: o.MaxDeliveries, backoff: o.Backoff,
		claimAfter: o.ClaimAfter, grace: o.Grace, log: o.Log, metrics: s.measured,
	}
}

// errClosed is returned by what was closed.
var errClosed = errors.New("closed")

// Subscribe returns the messages of a topic. Many of them are out at a time,
// unlike what message.Subscriber says, and their contexts do not end with ctx
// but when they are answered or Grace is over, so that a shutdown does not fail
// what is nearly done.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("subscribe to %s: subscriber is %w", topic, errClosed)
	}
	o := s.feedOptions(topic)
	if err := o.check(); err != nil {
		return nil, err
	}
	// Two subscriptions of one name would take each other's entries for their own.
	if s.counts[topic]++; s.counts[topic] > 1 {
		o.name += "-" + strconv.Itoa(s.counts[topic])
	}
	f, err := newFeed(s.dial, s.keys, s.o.InFlight, o)
	if err != nil {
		return nil, err
	}
	sub := newSubscription(f)
	ctx, cancel := context.WithCancel(ctx)
	s.feeds[f] = cancel
	s.running.Go(func() {
		defer cancel()
		sub.run(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.feeds, f)
	})
	return sub.output, nil
}

// SubscribeInitialize creates the group of a topic.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	o := s.feedOptions(topic)
	if err := o.check(); err != nil {
		return err
	}
	f, err := newFeed(s.dial, s.keys, 1, o)
	if err != nil {
		return err
	}
	return errors.Join(f.createGroups(context.Background()), f.client.Close())
}

// Ready returns nil while all subscriptions are being read, or what is in the way.
func (s *Subscriber) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for f := range s.feeds {
		errs = append(errs, f.ready())
	}
	return errors.Join(errs...)
}

// Close ends all subscriptions and waits for the messages that are out, up to
// Grace. It may be called again.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, cancel := range s.feeds {
		cancel()
	}
	s.mu.Unlock()
	s.running.Wait()
	return nil
}
