package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

func (w *world) subscriber(o stream.SubscriberOptions) *stream.Subscriber {
	w.Helper()
	if o.Group == "" {
		o.Group = "g"
	}
	o.Log = w.log()
	s, err := stream.NewSubscriber(w.dial, w.keys, o)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { s.Close() })
	return s
}

// route runs watermill's Router with one handler on topic books; the returned
// function closes it.
func (w *world) route(s message.Subscriber, h message.NoPublishHandlerFunc) func() {
	w.Helper()
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 30 * time.Second}, watermill.NopLogger{})
	if err != nil {
		w.Fatal(err)
	}
	router.AddMiddleware(stream.RecordFailure)
	router.AddConsumerHandler("h", "books", s, h)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := router.Run(context.Background()); err != nil {
			w.Error(err)
		}
	}()
	within(w, "the router", router.Running())
	stop := func() {
		if err := router.Close(); err != nil {
			w.Error(err)
		}
		<-done
	}
	w.Cleanup(stop)
	return stop
}

func TestRouterHandlesManyAtATime(t *testing.T) {
	w, l := newWorld(t), newLedger()
	const events = 300
	w.append(changed("books", events)...)
	var at, most atomic.Int32
	all := make(chan struct{})
	stop := w.route(w.subscriber(stream.SubscriberOptions{InFlight: 50, ClaimAfter: never}), func(m *message.Message) error {
		defer at.Add(-1)
		if n := at.Add(1); n == 50 {
			most.Store(n)
			close(all) // the 50 go on together; had fewer been out, this would wait for ever
		}
		<-all
		if e, err := stream.EventOf(m); err != nil || e.Type != "books.changed" {
			t.Errorf("EventOf = %+v, %v", e, err)
		}
		l.note(m)
		return nil
	})
	w.await(l, events)
	w.settled("g", "books")
	stop()
	if got, repeats := l.repeats(); got != events || repeats != 0 || most.Load() != 50 {
		t.Errorf("%d events, %d repeats, %d at a time; want %d, 0, 50", got, repeats, most.Load(), events)
	}
	if n := w.client.XInfoConsumers(t.Context(), w.keys.Topic("books"), "g").Val(); len(n) != 0 {
		t.Errorf("consumers left behind: %+v", n)
	}
}

// Through RecordFailure, what a handler says decides what becomes of the event.
func TestRouterFailures(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 5)...)
	w.append(event.Event{ID: "malformed", Type: "books.changed", Subject: "s", Data: []byte(`1`)})
	var pauses, tries atomic.Int32
	w.route(w.subscriber(stream.SubscriberOptions{MaxDeliveries: 2, Backoff: time.Millisecond}), func(m *message.Message) error {
		switch m.UUID {
		case "books-0":
			return fmt.Errorf("no such thing: %w", stream.ErrReject)
		case "books-1":
			panic("one")
		case "books-2":
			tries.Add(1)
			return errFails
		case "books-3":
			if pauses.Add(1) < 5 {
				return fmt.Errorf("%w: the model is away", stream.ErrPause)
			}
		case "malformed":
			m.Metadata["type"] = "" // as if it had come so
			_, err := stream.EventOf(m)
			return err
		}
		return nil
	})
	letters := map[string]stream.DeadLetter{}
	for _, letter := range w.dead(4) {
		letters[letter.Fields["id"]] = letter
	}
	w.settled("g", "books")
	for id, want := range map[string]struct {
		reason     string
		deliveries int
	}{
		"books-0": {"no such thing", 1}, "books-1": {"handler panicked: one", 2}, "books-2": {"it fails", 2}, "malformed": {"malformed event", 1},
	} {
		if got := letters[id]; !strings.Contains(got.Reason, want.reason) || got.Deliveries != want.deliveries {
			t.Errorf("%s: %+v; want %+v", id, got, want)
		}
	}
	if tries.Load() != 2 || pauses.Load() != 5 {
		t.Errorf("%d tries and %d pauses; want 2 and 5", tries.Load(), pauses.Load())
	}
}

func TestNackWithoutAReasonParks(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 1)...)
	messages, err := w.subscriber(stream.SubscriberOptions{MaxDeliveries: 3, Backoff: time.Millisecond}).Subscribe(t.Context(), "books")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		within(t, "the message", messages).Nack()
	}
	if letter := w.dead(1)[0]; letter.Reason != "nacked without a reason" {
		t.Errorf("dead letter = %+v", letter)
	}
}

// Closing waits for the handler that runs, does not end its context, and hands
// the others back at once.
func TestCloseOfTheRouterRedeliversNothing(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 100)...)
	begun, end := make(chan struct{}, 100), make(chan struct{})
	stop := w.route(w.subscriber(stream.SubscriberOptions{InFlight: 10, ClaimAfter: never}), func(m *message.Message) error {
		begun <- struct{}{}
		<-end
		l.note(m)
		return m.Context().Err()
	})
	for range 10 {
		within(t, "a handler", begun)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	select {
	case <-stopped:
		t.Error("closed before its handlers were done")
	case <-time.After(50 * time.Millisecond):
	}
	close(end)
	within(t, "the end of the router", stopped)
	w.route(w.subscriber(stream.SubscriberOptions{ClaimAfter: 300 * time.Millisecond}), func(m *message.Message) error {
		if entry, _ := stream.EntryOf(m); entry.Deliveries != 1 {
			t.Errorf("%s says that it was delivered before", m.UUID)
		}
		l.note(m)
		return nil
	})
	w.await(l, 100)
	w.settled("g", "books")
	if _, repeats := l.repeats(); repeats != 0 {
		t.Errorf("%d repeats", repeats)
	}
}

func TestClosedSubscriber(t *testing.T) {
	w := newWorld(t)
	s := w.subscriber(stream.SubscriberOptions{})
	messages, err := s.Subscribe(t.Context(), "books")
	if err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "ready", s.Ready)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, open := <-messages; open {
		t.Error("the channel is open after Close")
	}
	if _, err := s.Subscribe(t.Context(), "books"); err == nil {
		t.Error("a closed subscriber subscribes")
	}
}

func (w *world) redisMessages(n int) []*message.Message {
	ms := make([]*message.Message, n)
	for i := range ms {
		ms[i] = stream.FromEvent(event.Event{ID: fmt.Sprint("m", i), Type: "books.changed", Subject: "s", Data: []byte(`{}`)})
		ms[i].Metadata["own"] = fmt.Sprint("thing ", i)
	}
	return ms
}

// What a stock watermill-redisstream service publishes, we consume.
func TestStockPublisher(t *testing.T) {
	w, l := newWorld(t), newLedger()
	client, _ := w.dial(nil)
	stock, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: client}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stock.Close() })
	if err := stock.Publish(w.keys.Topic("books"), w.redisMessages(20)...); err != nil {
		t.Fatal(err)
	}
	w.append(changed("books", 20)...) // the formats mix
	w.consume(stream.ConsumerOptions{}, func(ctx context.Context, batch []*message.Message) []error {
		for _, m := range batch {
			e, err := stream.EventOf(m)
			if err != nil || e.Subject != "s" || e.Time.IsZero() || e.ID != m.UUID {
				t.Errorf("EventOf = %+v, %v", e, err)
			}
			if strings.HasPrefix(m.UUID, "m") && (m.Metadata["own"] != "thing "+m.UUID[1:] || string(e.Data) != "{}") {
				t.Errorf("%s has %v and %s", m.UUID, m.Metadata, e.Data)
			}
		}
		return l.handle(ctx, batch)
	})
	w.await(l, 40)
	w.settled("g", "books")
	w.dead(0)
}

// What we publish in its format, a stock watermill-redisstream service consumes.
func TestStockSubscriber(t *testing.T) {
	w := newWorld(t)
	if err := w.publisher(stream.PublisherOptions{Wire: stream.WireWatermill}).Publish("books", w.redisMessages(20)...); err != nil {
		t.Fatal(err)
	}
	client, _ := w.dial(nil)
	stock, err := redisstream.NewSubscriber(redisstream.SubscriberConfig{
		Client: client, ConsumerGroup: "stock", DisableIndefiniteInitialBlock: true,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stock.Close() })
	messages, err := stock.Subscribe(t.Context(), w.keys.Topic("books"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		m := within(t, "a message", messages)
		if e, err := stream.EventOf(m); err != nil || m.UUID != fmt.Sprint("m", i) || e.Subject != "s" || m.Metadata["own"] != fmt.Sprint("thing ", i) {
			t.Errorf("message %s: %+v, %v", m.UUID, e, err)
		}
		m.Ack()
	}
}
