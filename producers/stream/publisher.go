package stream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

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
	client     redis.UniversalClient
	keys       Keys
	o          PublisherOptions
	published  *prometheus.CounterVec // nil: none
	onceScript *redis.Script
	closed     atomic.Bool
}

// transactionEntries and transactionBytes bound what goes to Redis in one
// transaction: Redis does nothing else meanwhile.
const (
	transactionEntries = 1000
	transactionBytes   = 4 << 20
)

// NewPublisher makes a publisher with a client of its own; Redis need not be up.
func NewPublisher(dial Dial, keys Keys, o PublisherOptions) (*Publisher, error) {
	p := &Publisher{keys: keys, o: o, onceScript: newScript(onceSource)}
	if o.Metrics != nil {
		p.published = prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_stream_published_total",
			Help: "Entries written into the streams.",
		}, []string{"topic"})
		if err := register(o.Metrics, &p.published); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	var err error
	if p.client, err = dial(nil); err != nil {
		return nil, fmt.Errorf("dial redis: %w", err)
	}
	return p, nil
}

// addition is one entry to be written.
type addition struct {
	topic  string
	fields []any
}

func (a addition) size() int {
	n := 0
	for _, field := range a.fields {
		switch field := field.(type) {
		case string:
			n += len(field)
		case []byte:
			n += len(field)
		}
	}
	return n
}

// Publish writes messages into the stream of a topic. Up to a thousand of them, or
// some megabytes, go in one transaction: all or none. Of more, those before the
// transaction that failed are published. The context is that of the first
// message.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	additions := make([]addition, len(messages))
	for i, m := range messages {
		fields, err := encode(m, p.o.Wire)
		if err != nil {
			return fmt.Errorf("publish to %s: %w", topic, err)
		}
		additions[i] = addition{topic: topic, fields: fields}
	}
	if _, err := p.add(messages[0].Context(), additions); err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	return nil
}

// Append writes events, each into the stream of its own topic, and returns the
// ids of their entries in the order of the events. An event that is malformed is
// refused before anything is written. Transactions are as with Publish; with an
// error, the ids are those of the events that were written.
func (p *Publisher) Append(ctx context.Context, events ...event.Event) (ids []string, err error) {
	additions, err := additionsOf(events)
	if err != nil {
		return nil, err
	}
	ids, err = p.add(ctx, additions)
	if err != nil {
		return ids, fmt.Errorf("append %d events: %w", len(events), err)
	}
	return ids, nil
}

// additionsOf makes entries of events, or of none where one is malformed.
func additionsOf(events []event.Event) ([]addition, error) {
	additions := make([]addition, len(events))
	for i, e := range events {
		if err := e.Validate(); err != nil {
			return nil, fmt.Errorf("append event %d of %d: %w", i+1, len(events), err)
		}
		fields := e.Fields()
		additions[i] = addition{topic: e.Topic(), fields: make([]any, len(fields))}
		for j, field := range fields {
			additions[i].fields[j] = field
		}
	}
	return additions, nil
}

// bite returns how many of the entries, one at least, go in one transaction.
func bite(additions []addition) int {
	n, bytes := 0, 0
	for n < len(additions) && n < transactionEntries && (n == 0 || bytes < transactionBytes) {
		bytes += additions[n].size()
		n++
	}
	return n
}

func (p *Publisher) add(ctx context.Context, additions []addition) (ids []string, err error) {
	if p.closed.Load() {
		return nil, fmt.Errorf("publisher is %w", errClosed)
	}
	for len(additions) > 0 {
		n := bite(additions)
		written, err := p.transact(ctx, additions[:n])
		if err != nil {
			return ids, err
		}
		ids, additions = append(ids, written...), additions[n:]
	}
	p.o.Log.Debug().Int("events", len(ids)).Msg("published")
	return ids, nil
}

// transact writes entries, all or none.
func (p *Publisher) transact(ctx context.Context, additions []addition) ([]string, error) {
	cmds := make([]*redis.StringCmd, len(additions))
	queue := func(pipe redis.Pipeliner) error {
		for i, a := range additions {
			cmds[i] = pipe.XAdd(ctx, &redis.XAddArgs{Stream: p.keys.Topic(a.topic), Values: a.fields})
		}
		return nil
	}
	var err error
	if len(additions) == 1 {
		_, err = p.client.Pipelined(ctx, queue)
	} else {
		_, err = p.client.TxPipelined(ctx, queue)
	}
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(cmds))
	var errs []error
	for i, cmd := range cmds {
		ids[i] = cmd.Val()
		errs = append(errs, cmd.Err())
		if p.published != nil {
			p.published.WithLabelValues(additions[i].topic).Inc()
		}
	}
	return ids, errors.Join(errs...)
}

// Close closes the client. It may be called again.
func (p *Publisher) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	return p.client.Close()
}
