package stream_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// A handler that ignores its context is given up: its events come again, to whoever
// is free, the others go on, and only when no call is left is the group not ready.
func TestAHandlerThatHangsIsGivenUp(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 1)...)
	release, asked := make(chan struct{}), make(chan error, 10)
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free) // before the consumer is stopped
	done := newLedger()
	r := w.consume(stream.ConsumerOptions{Concurrency: 2, BatchSize: 1, Timeout: 100 * time.Millisecond, Backoff: time.Millisecond},
		func(ctx context.Context, batch []*message.Message) []error {
			if entry, _ := stream.EntryOf(batch[0]); batch[0].UUID == "books-0" && entry.Deliveries < 3 {
				<-ctx.Done()
				asked <- context.Cause(ctx)
				<-release
				return nil
			}
			return done.handle(ctx, batch)
		})
	for range 2 { // both calls hang
		if err := within(t, "the end of the handler's time", asked); err == nil || !strings.Contains(err.Error(), "deadline") {
			t.Errorf("the context ended by %v", err)
		}
	}
	testserver.Eventually(t, "not ready", func() error {
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "group g of books: handler does not return") {
			return errFails
		}
		return nil
	})
	free()
	w.await(done, 1)
	w.settled("g", "books")
	w.ready(r)
}

// One that listens to its context fails in time, and keeps nothing.
func TestAHandlerIsToldThatItsTimeIsOver(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 1)...)
	w.consume(stream.ConsumerOptions{Timeout: 50 * time.Millisecond, Backoff: time.Millisecond, MaxDeliveries: 2},
		func(ctx context.Context, batch []*message.Message) []error {
			<-batch[0].Context().Done()
			return []error{ctx.Err()}
		})
	if l := w.dead(1)[0]; l.Deliveries != 2 || !strings.Contains(l.Reason, "deadline") {
		t.Errorf("the dead letter is %+v", l)
	}
}

// A message that nobody answers has failed; its slot is held until somebody does.
func TestAMessageWithoutAnAnswerComesAgain(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 1)...)
	s, err := stream.NewSubscriber(w.dial, w.keys, stream.SubscriberOptions{
		Group: "g", InFlight: 1, Timeout: 100 * time.Millisecond, Backoff: time.Millisecond, Log: w.log(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	messages, err := s.Subscribe(t.Context(), "books")
	if err != nil {
		t.Fatal(err)
	}
	m := within(t, "the message", messages)
	within(t, "the end of its time", m.Context().Done())
	testserver.Eventually(t, "not ready", func() error {
		if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "does not return") {
			return errFails
		}
		return nil
	})
	m.Ack()
	again := within(t, "the message again", messages)
	if entry, _ := stream.EntryOf(again); again.UUID != m.UUID || entry.Deliveries != 2 {
		t.Errorf("%s comes with %d deliveries", again.UUID, entry.Deliveries)
	}
	again.Ack()
	w.settled("g", "books")
}
