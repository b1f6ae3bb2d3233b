package stream_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/producers/stream"
)

func (w *world) stockPublisher() *redisstream.Publisher {
	w.Helper()
	client, _ := w.dial(nil)
	p, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: client}, nil)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { p.Close() })
	return p
}

func (w *world) stockSubscriber(o redisstream.SubscriberConfig) *redisstream.Subscriber {
	w.Helper()
	o.Client, _ = w.dial(nil)
	o.DisableIndefiniteInitialBlock = true
	s, err := redisstream.NewSubscriber(o, nil)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { s.Close() })
	return s
}

// subscribe has a subscriber's messages, of our topic or of the stream by its name.
func (w *world) subscribe(s message.Subscriber, topic string) <-chan *message.Message {
	w.Helper()
	messages, err := s.Subscribe(w.Context(), topic)
	if err != nil {
		w.Fatal(err)
	}
	return messages
}

// odd are messages that no JSON could carry.
func odd(n int) []*message.Message {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	ms := make([]*message.Message, n)
	for i := range ms {
		ms[i] = message.NewMessage(fmt.Sprint("m", i), [][]byte{every, {}, []byte(`{"n":1}`), make([]byte, 100_000)}[i%4])
		maps.Copy(ms[i].Metadata, []message.Metadata{
			{}, {"id": "not its id", "data": "", "": "no name"}, {"größe": "ö\x00\xff", "payload": "p", "metadata": "m"},
		}[i%3])
	}
	return ms
}

// differs says in what a message that came is not the one that was sent.
func differs(got, sent *message.Message) string {
	switch {
	case got.UUID != sent.UUID:
		return fmt.Sprintf("its id is %s, not %s", got.UUID, sent.UUID)
	case string(got.Payload) != string(sent.Payload):
		return fmt.Sprintf("%s carries %.20q, not %.20q", got.UUID, got.Payload, sent.Payload)
	case !maps.Equal(got.Metadata, sent.Metadata):
		return fmt.Sprintf("%s has the metadata %q, not %q", got.UUID, got.Metadata, sent.Metadata)
	}
	return ""
}

// wantsAll takes the messages that were sent, in whatever order, and acknowledges
// them.
func (w *world) wantsAll(who string, messages <-chan *message.Message, sent []*message.Message) {
	w.Helper()
	left := map[string]*message.Message{}
	for _, m := range sent {
		left[m.UUID] = m
	}
	for len(left) > 0 {
		m := within(w, "a message for "+who, messages)
		if left[m.UUID] == nil {
			w.Errorf("%s got %s, which was not sent or is there already", who, m.UUID)
		} else if why := differs(m, left[m.UUID]); why != "" {
			w.Errorf("to %s: %s", who, why)
		}
		delete(left, m.UUID)
		m.Ack()
	}
}

// Both libraries write into one stream, and a group of each reads all of it, byte
// for byte.
func TestStockGroupBesideOurs(t *testing.T) {
	w := newWorld(t)
	all := odd(48)
	ours := w.publisher(stream.PublisherOptions{Wire: stream.WireWatermill})
	if err := w.stockPublisher().Publish(w.keys.Topic("books"), all[:24]...); err != nil {
		t.Fatal(err)
	}
	if err := ours.Publish("books", all[24:]...); err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	for who, messages := range map[string]<-chan *message.Message{
		"ours":       w.subscribe(w.subscriber(stream.SubscriberOptions{Group: "ours"}), "books"),
		"the stock":  w.subscribe(w.stockSubscriber(redisstream.SubscriberConfig{ConsumerGroup: "stock"}), w.keys.Topic("books")),
		"ours again": w.subscribe(w.subscriber(stream.SubscriberOptions{Group: "again"}), "books"),
	} {
		both.Go(func() { w.wantsAll(who, messages, all) })
	}
	both.Wait()
	for _, group := range []string{"ours", "stock", "again"} {
		w.settled(group, "books")
	}
}

// relayed runs a Router that passes messages on, until the test is over.
func (w *world) relayed(from message.Subscriber, fromTopic string, to message.Publisher, toTopic string) {
	w.Helper()
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		w.Fatal(err)
	}
	router.AddHandler("relay", fromTopic, from, toTopic, to, func(m *message.Message) ([]*message.Message, error) {
		return []*message.Message{m.Copy()}, nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := router.Run(context.Background()); err != nil {
			w.Error(err)
		}
	}()
	w.Cleanup(func() {
		if err := router.Close(); err != nil {
			w.Error(err)
		}
		<-done
	})
	within(w, "the router", router.Running())
}

// A message goes from ours to a stock service, from there by the Router of each, in
// every pairing of subscriber and publisher, and comes out as it went in.
func TestRoutersOfBothLibraries(t *testing.T) {
	w, all := newWorld(t), odd(12)
	stock := func() message.Subscriber {
		return w.stockSubscriber(redisstream.SubscriberConfig{ConsumerGroup: "g"})
	}
	wire := stream.PublisherOptions{Wire: stream.WireWatermill}
	w.relayed(stock(), w.keys.Topic("a"), w.stockPublisher(), w.keys.Topic("b"))
	w.relayed(w.subscriber(stream.SubscriberOptions{}), "b", w.publisher(wire), "c")
	w.relayed(stock(), w.keys.Topic("c"), w.publisher(stream.PublisherOptions{}), "d")
	w.relayed(w.subscriber(stream.SubscriberOptions{}), "d", w.stockPublisher(), w.keys.Topic("e"))
	if err := w.publisher(wire).Publish("a", all...); err != nil {
		t.Fatal(err)
	}
	w.wantsAll("the stock", w.subscribe(stock(), w.keys.Topic("e")), all)
}

// A service that changes libraries runs both in one group for a while: each message
// goes to one of them, and what either leaves unanswered the other takes over.
func TestStockSharesAGroup(t *testing.T) {
	w, all := newWorld(t), odd(60)
	publish := func(ms []*message.Message) {
		if err := w.stockPublisher().Publish(w.keys.Topic("books"), ms...); err != nil {
			t.Fatal(err)
		}
	}
	stock := func() *redisstream.Subscriber {
		return w.stockSubscriber(redisstream.SubscriberConfig{
			ConsumerGroup: "g", ClaimInterval: 50 * time.Millisecond, MaxIdleTime: 30 * time.Second,
		})
	}
	// The stock subscriber ends with a message in its hands.
	publish(all[:20])
	old := stock()
	within(t, "a message", w.subscribe(old, w.keys.Topic("books")))
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	ours := w.subscriber(stream.SubscriberOptions{ClaimAfter: 500 * time.Millisecond, Grace: time.Millisecond})
	mine := w.subscribe(ours, "books")
	w.wantsAll("ours", mine, all[:20])
	w.settled("g", "books")

	// Both are there.
	again := stock()
	theirs := w.subscribe(again, w.keys.Topic("books"))
	publish(all[20:40])
	merged := make(chan *message.Message)
	stop, pumps := make(chan struct{}), sync.WaitGroup{}
	for _, from := range []<-chan *message.Message{mine, theirs} {
		pumps.Go(func() {
			for {
				select {
				case m := <-from:
					merged <- m
				case <-stop:
					return
				}
			}
		})
	}
	w.wantsAll("either", merged, all[20:40])
	w.settled("g", "books")
	close(stop)
	pumps.Wait()

	// Ours ends with all that it got in its hands, and hands it back.
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	publish(all[40:])
	within(t, "a message", mine)
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}
	w.wantsAll("the stock", w.subscribe(stock(), w.keys.Topic("books")), all[40:])
	w.settled("g", "books")
}
