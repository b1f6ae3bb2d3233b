package stream_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// Events that wait for their turn hold up no other topic of their consumer, while
// those that are paused do, since nothing works then.
func TestWhatWaitsForItsTurnHoldsUpNobody(t *testing.T) {
	w := newWorld(t)
	w.append(changed("slow", 32)...)
	done := newLedger()
	turned := make(chan struct{}, 1000)
	w.consume(stream.ConsumerOptions{Topics: []string{"slow", "books"}, BatchSize: 8}, func(ctx context.Context, batch []*message.Message) []error {
		if entry, _ := stream.EntryOf(batch[0]); entry.Topic == "slow" {
			errs := make([]error, len(batch))
			for i := range batch {
				errs[i] = fmt.Errorf("%w: not yet", stream.ErrLater)
				turned <- struct{}{}
			}
			return errs
		}
		return done.handle(ctx, batch)
	})
	for range 64 { // each came back once at least
		within(t, "an event that waits", turned)
	}
	begun := time.Now()
	w.append(changed("books", 1)...)
	w.await(done, 1)
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	if letters, err := w.letters().List(t.Context(), stream.Filter{}); err != nil || len(letters) != 0 {
		t.Errorf("%d dead letters, %v", len(letters), err)
	}
}

// An event that says when it has something to come back for stays away until then.
func TestWhatKnowsItsTimeComesBackThen(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 1)...)
	const after = 1500 * time.Millisecond
	times := make(chan time.Time, 100)
	w.consume(stream.ConsumerOptions{Topics: []string{"books"}}, func(_ context.Context, batch []*message.Message) []error {
		if entry, _ := stream.EntryOf(batch[0]); entry.Deliveries != 1 {
			t.Errorf("it cost a delivery: this is the %d.", entry.Deliveries)
		}
		times <- time.Now()
		if len(times) > 1 {
			return nil
		}
		return []error{fmt.Errorf("%w: not yet", stream.LaterBy(after))}
	})
	testserver.Eventually(t, "it came back", func() error {
		if len(times) < 2 {
			return fmt.Errorf("it came %d times", len(times))
		}
		return nil
	})
	if first, second := <-times, <-times; second.Sub(first) < after {
		t.Errorf("it came back after %s", second.Sub(first))
	}
}
