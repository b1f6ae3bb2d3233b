package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// hanging is a handler that ignores its context for some events.
type hanging struct {
	*ledger
	hangs   func(*message.Message) bool
	asked   chan error // gets why the context of each hanging call ended
	release chan struct{}
}

func newHanging(t *testing.T, hangs func(*message.Message) bool) (h hanging, free func()) {
	t.Helper()
	h = hanging{ledger: newLedger(), hangs: hangs, asked: make(chan error, 100), release: make(chan struct{})}
	free = sync.OnceFunc(func() { close(h.release) })
	return h, free
}

func (h hanging) handle(ctx context.Context, batch []*message.Message) []error {
	if slices.ContainsFunc(batch, h.hangs) {
		<-ctx.Done()
		h.asked <- ctx.Err()
		for { // as a handler does that knows of no context, and uses its messages
			batch[0].Metadata.Set("hangs", time.Now().String())
			select {
			case <-h.release:
				return nil
			case <-time.After(time.Millisecond):
			}
		}
	}
	return h.ledger.handle(ctx, batch)
}

// A handler that ignores its context is given up: those that were in one batch with
// what hangs come again, each alone, and what hangs alone is a dead letter. When no
// call is left the group is not ready, and once they return it is again.
func TestAHandlerThatHangsIsGivenUp(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 5)...)
	h, free := newHanging(t, func(m *message.Message) bool { return m.UUID == "books-2" })
	r := w.consume(stream.ConsumerOptions{Concurrency: 2, Timeout: 100 * time.Millisecond, Backoff: time.Millisecond}, h.handle)
	t.Cleanup(free) // before the consumer is stopped
	for range 2 {
		if err := within(t, "the end of the handler's time", h.asked); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the context ended by %v", err)
		}
	}
	testserver.Eventually(t, "not ready", func() error {
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "group g of books: handler does not return") {
			return fmt.Errorf("ready: %w", err)
		}
		return nil
	})
	if l := w.dead(1)[0]; l.Fields["id"] != "books-2" || l.Deliveries != 2 || !strings.Contains(l.Reason, "does not return") || l.Fields["hangs"] != "" {
		t.Errorf("the dead letter is %+v", l)
	}
	free()
	w.await(h.ledger, 4)
	w.settled("g", "books")
	w.ready(r)
}

// After a panic each message is handled alone; where one of them hangs, no other is
// begun in its place.
func TestNoCallIsBegunInThePlaceOfOneThatHangs(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 6)...)
	h, free := newHanging(t, func(*message.Message) bool { return true })
	w.consume(stream.ConsumerOptions{Concurrency: 1, Timeout: 50 * time.Millisecond, Backoff: time.Millisecond},
		func(ctx context.Context, batch []*message.Message) []error {
			if len(batch) > 1 {
				panic("all of them")
			}
			return h.handle(ctx, batch)
		})
	t.Cleanup(free)
	within(t, "the end of the handler's time", h.asked)
	testserver.Eventually(t, "the others given back", func() error {
		pending, err := w.client.XPending(t.Context(), w.keys.Topic("books"), "g").Result()
		if err == nil && pending.Count != 5 {
			err = fmt.Errorf("%d are pending", pending.Count)
		}
		return err
	})
	if n := len(h.asked); n != 0 {
		t.Errorf("%d more calls hang", n)
	}
	free()
	w.await(h.ledger, 0)
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

// A message is told that its time is over before it is given up, also where Redis was
// too slow for anybody to look in time.
func TestAMessageIsToldBeforeItIsGivenUp(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 2)...)
	s, err := stream.NewSubscriber(w.dial, w.keys, stream.SubscriberOptions{
		Group: "g", Timeout: 200 * time.Millisecond, Backoff: time.Millisecond, Log: w.log(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	messages, err := s.Subscribe(t.Context(), "books")
	if err != nil {
		t.Fatal(err)
	}
	first, second := within(t, "a message", messages), within(t, "a message", messages)
	if err := w.client.Do(t.Context(), "CLIENT", "PAUSE", 1700, "WRITE").Err(); err != nil {
		t.Fatal(err)
	}
	first.Ack() // and the answer cannot be written, while the other's time passes
	within(t, "the end of its time", second.Context().Done())
	second.Ack()
	w.settled("g", "books")
}
