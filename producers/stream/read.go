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

	fresh, failures := true, 0
	count := int64(f.o.batchSize)
	for f.slots.wait(ctx) && f.gate.wait(ctx) {
		select {
		case <-f.conns.changed:
			fresh = true
		default:
		}
		ds, err := f.readOnce(ctx, fresh, min(count, int64(f.room())))
		if err != nil {
			fresh = true
			f.report(err)
			failures++
			pause(ctx, backoff(50*time.Millisecond, time.Second, failures))
			continue
		}
		fresh, failures = false, 0
		f.report(nil)
		count = f.nextCount(count, ds)
		f.admit(ctx, ds)
	}
}

// readOnce makes one read; a first one makes the groups and takes up what is
// pending.
func (f *feed) readOnce(ctx context.Context, first bool, count int64) ([]*delivery, error) {
	if first {
		if err := f.createGroups(ctx); err != nil {
			return nil, err
		}
		for _, topic := range f.o.topics {
			if err := f.claimTopic(ctx, topic, f.o.name, 0); err != nil {
				return nil, err
			}
		}
		f.report(nil)
	}
	streams := f.streams()
	for range f.o.topics {
		streams = append(streams, ">")
	}
	// Not ctx: what Redis has sent must be read, or it stays pending for nobody.
	found, err := f.client.XReadGroup(context.WithoutCancel(ctx), &redis.XReadGroupArgs{
		Group: f.o.group, Consumer: f.o.name, Streams: streams, Count: count, Block: readBlock,
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
			ds = append(ds, &delivery{topic: topic, id: m.ID, values: m.Values, deliveries: 1})
		}
	}
	return ds, nil
}

// nextCount sizes the next read by the bytes of this one.
func (f *feed) nextCount(count int64, ds []*delivery) int64 {
	if len(ds) == 0 {
		return count
	}
	bytes := 0
	for _, d := range ds {
		bytes += d.size()
	}
	average := max(bytes/len(ds), 1)
	return min(max(int64(readBytes/average), 1), int64(f.o.batchSize))
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
	if d.message, err = decode(d.id, d.values); err != nil {
		return fmt.Errorf("%w: %w", ErrReject, err)
	}
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
