package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/producers/event"
)

// read brings new entries until ctx ends. Before the first ones, and whenever
// the connection or Redis itself may have been replaced, it takes up what is
// pending for this consumer and not in flight: an answer that got lost on its
// way, say.
func (f *feed) read(ctx context.Context) {
	done := make(chan struct{})
	var waker sync.WaitGroup
	waker.Go(func() {
		<-ctx.Done()
		f.conns.unblock(context.WithoutCancel(ctx), f.client, done)
	})
	defer waker.Wait()
	defer close(done)

	began, fresh, failures := false, true, 0
	size := newSizing(f.o.batchSize, false)
	for f.slots.wait(ctx) && f.gate.wait(ctx) {
		select {
		case <-f.conns.changed:
			fresh = true
		default:
		}
		count := min(size.count(), f.room())
		if fresh {
			if err := f.begin(ctx, began); err != nil {
				f.report(err)
				failures++
				pause(ctx, backoff(50*time.Millisecond, time.Second, failures))
				continue
			}
			began, fresh = true, false
		}
		ds, err := f.readOnce(ctx, count, size.more)
		if err != nil {
			fresh, size = true, newSizing(f.o.batchSize, true)
			f.report(err)
			failures++
			pause(ctx, backoff(50*time.Millisecond, time.Second, failures))
			continue
		}
		failures = 0
		f.report(nil)
		size.note(ds, count)
		f.admit(ctx, ds)
	}
}

// begin makes the groups and takes up what is pending for this consumer. What was
// read by this very run and never came counts as not delivered.
func (f *feed) begin(ctx context.Context, began bool) error {
	if err := f.createGroups(ctx); err != nil {
		return err
	}
	for _, topic := range f.o.topics {
		if err := f.claimTopic(ctx, topic, claims{consumer: f.o.name, lost: began}); err != nil {
			return err
		}
	}
	f.report(nil)
	return nil
}

// readOnce makes one read. Where there is more, it does not wait.
func (f *feed) readOnce(ctx context.Context, count int, more bool) ([]*delivery, error) {
	// Not ctx: what Redis has sent must be read, or it stays pending for nobody.
	ctx = context.WithoutCancel(ctx)
	if more {
		ds, err := f.takeNew(ctx, count)
		if len(ds) > 0 || err != nil {
			return ds, err
		}
	}
	return f.awaitNew(ctx, count)
}

// newOnes are the arguments of XREADGROUP that ask for new entries of every topic.
func (f *feed) newOnes() []string {
	streams := f.streams()
	for range f.o.topics {
		streams = append(streams, ">")
	}
	return streams
}

// awaitNew waits for new entries for a while.
func (f *feed) awaitNew(ctx context.Context, count int) ([]*delivery, error) {
	// go-redis gives a blocking command ten seconds more than it blocks: so long a
	// Redis that fell silent would hold up a shutdown.
	ctx, cancel := context.WithTimeout(ctx, readBlock+settleGrace)
	defer cancel()
	found, err := f.client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: f.o.group, Consumer: f.o.name, Streams: f.newOnes(), Count: int64(count), Block: readBlock,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	var ds []*delivery
	for _, s := range found {
		topic := strings.TrimPrefix(s.Stream, f.keys.Topic(""))
		for _, m := range s.Messages {
			ds = append(ds, &delivery{topic: topic, id: m.ID, fields: fieldsOf(m.Values), deliveries: 1})
		}
	}
	return ds, nil
}

// takeNew takes the new entries that are there. It asks for the bytes of the answer,
// which go-redis can be asked for only where nothing blocks: it gives a command of
// which it knows nothing no more time than any other.
func (f *feed) takeNew(ctx context.Context, count int) ([]*delivery, error) {
	args := []any{"XREADGROUP", "GROUP", f.o.group, f.o.name, "COUNT", count, "STREAMS"}
	for _, text := range f.newOnes() {
		args = append(args, text)
	}
	f.answer.reset()
	if err := f.client.Process(ctx, redis.NewRawWriteToCmd(ctx, &f.answer, args...)); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	ds := make([]*delivery, 0, count)
	topic, of := "", ""
	err := readReply(f.answer.bytes, func(stream, id string, values fields) {
		if stream != of {
			topic, of = strings.TrimPrefix(stream, f.keys.Topic("")), stream
		}
		ds = append(ds, &delivery{topic: topic, id: id, fields: values, deliveries: 1})
	})
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return ds, nil
}

// admit takes up what is not in flight, settles at once what no handler should
// see, and delivers the rest.
func (f *feed) admit(ctx context.Context, ds []*delivery) {
	ds = f.flight.add(ds)
	good := ds[:0]
	var bad []outcome
	for _, d := range ds {
		if err := f.judge(d); err != nil {
			bad = append(bad, outcome{d, err})
			continue
		}
		good = append(good, d)
	}
	if len(bad) > 0 {
		settling, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleGrace)
		f.settle(settling, bad)
		cancel()
	}
	if len(good) > 0 {
		f.deliver(ctx, good)
	}
}

// judge makes the delivery's message and says why no handler should see it.
func (f *feed) judge(d *delivery) error {
	if d.malformed != nil {
		return fmt.Errorf("%w: %w", ErrReject, d.malformed)
	}
	var err error
	if d.message, err = decode(d.id, d.fields); err != nil {
		return fmt.Errorf("%w: %w", ErrReject, err)
	}
	d.kind = d.message.Metadata[event.FieldType] // now: a handler may change the message
	if f.o.events {
		d.event, d.malformed = parse(d.message, d)
		d.parsed = true
		if d.malformed != nil {
			return d.malformed
		}
	}
	// Whoever had it before never said how it went: the event may be what kills them.
	if d.deliveries > f.o.maxDeliveries {
		return fmt.Errorf("%w: delivered %d times without an answer", ErrReject, d.deliveries-1)
	}
	return nil
}

// backoff grows from least by doubling up to most, and is spread over its upper
// half, so that what failed together does not come back together.
func backoff(least, most time.Duration, failures int) time.Duration {
	d := least << min(failures-1, 20)
	if d <= 0 || d > most {
		d = most
	}
	return d/2 + rand.N(d/2+1)
}
