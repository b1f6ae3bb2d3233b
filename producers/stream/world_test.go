package stream_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

func TestMain(m *testing.M) {
	if does := os.Getenv(asProcess); does != "" {
		os.Exit(runAssigned(does))
	}
	// watermill's own test double for many subscribers leaves goroutines behind
	// when a message comes twice.
	const multiplier = "github.com/ThreeDotsLabs/watermill/internal/subscriber.(*multiplier).Subscribe.func"
	// toxiproxy's links may wait for ever to pass on what they held when a toxic was
	// taken away.
	const toxiproxy = "github.com/Shopify/toxiproxy/v2"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(multiplier+"2"), goleak.IgnoreAnyFunction(multiplier+"3"),
		goleak.IgnoreAnyFunction(toxiproxy+".(*ToxicLink).read"), goleak.IgnoreAnyFunction(toxiproxy+".(*ToxicLink).write"),
		goleak.IgnoreAnyFunction(toxiproxy+"/toxics.(*ToxicStub).Run"))
}

// world is one Redis and what a test needs around it.
type world struct {
	*testing.T
	server *testserver.Redis
	client *redis.Client
	keys   stream.Keys
}

func newWorld(t *testing.T, args ...string) *world {
	t.Helper()
	t.Parallel()
	server := testserver.NewRedis(t, args...)
	return &world{T: t, server: server, client: server.Client(t), keys: stream.NewKeys("test:")}
}

func (w *world) dial(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
	o, err := redis.ParseURL(w.server.URL())
	if err != nil {
		return nil, err
	}
	o.OnConnect = onConnect
	return redis.NewClient(o), nil
}

func (w *world) log() zerolog.Logger {
	return zerolog.New(zerolog.NewTestWriter(w)).Level(zerolog.WarnLevel)
}

func (w *world) publisher(o stream.PublisherOptions) *stream.Publisher {
	w.Helper()
	p, err := stream.NewPublisher(w.dial, w.keys, o)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { p.Close() })
	return p
}

// changed returns n events of a table.
func changed(table string, n int) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		events[i] = event.Event{ID: fmt.Sprintf("%s-%d", table, i), Type: event.TableChanged(table), Subject: "s", View: "v"}
	}
	return events
}

func (w *world) append(events ...event.Event) []string {
	w.Helper()
	ids, err := w.publisher(stream.PublisherOptions{}).Append(w.Context(), events...)
	if err != nil {
		w.Fatal(err)
	}
	return ids
}

// running is a consumer that runs.
type running struct {
	*stream.Consumer
	cancel context.CancelFunc
	done   chan struct{}
}

// stop ends it as a deploy does.
func (r *running) stop() {
	r.cancel()
	<-r.done
}

func (w *world) consume(o stream.ConsumerOptions, h stream.BatchHandler) *running {
	w.Helper()
	if o.Group == "" {
		o.Group = "g"
	}
	if o.Topics == nil {
		o.Topics = []string{"books"}
	}
	o.Log = w.log()
	c, err := stream.NewConsumer(w.dial, w.keys, h, o)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Consumer: c, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := c.Run(ctx); err != nil {
			w.Error(err)
		}
	}()
	w.Cleanup(r.stop)
	return r
}

// ledger counts how often each event was handled.
type ledger struct {
	mu    sync.Mutex
	times map[string]int
	most  int // messages in one batch
}

func newLedger() *ledger { return &ledger{times: map[string]int{}} }

func (l *ledger) note(m *message.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[m.UUID]++
}

// handle is a BatchHandler that does it all.
func (l *ledger) handle(_ context.Context, batch []*message.Message) []error {
	l.mu.Lock()
	l.most = max(l.most, len(batch))
	l.mu.Unlock()
	for _, m := range batch {
		l.note(m)
	}
	return nil
}

func (l *ledger) of(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.times[id]
}

// repeats returns how many events there were and how many deliveries too many.
func (l *ledger) repeats() (events, repeats int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.times {
		repeats += n - 1
	}
	return len(l.times), repeats
}

// await waits until n different events have been handled.
func (w *world) await(l *ledger, n int) {
	w.Helper()
	testserver.Eventually(w, "events handled", func() error {
		if got, _ := l.repeats(); got < n {
			return fmt.Errorf("%d of %d", got, n)
		}
		return nil
	})
}

// settled waits until the group has nothing more to do in a topic.
func (w *world) settled(group, topic string) {
	w.Helper()
	testserver.Eventually(w, "group settled", func() error {
		states, err := stream.Groups(w.Context(), w.client, w.keys, []string{topic})
		if err != nil {
			return err
		}
		for _, s := range states {
			if s.Group == group && s.Lag == 0 && s.Pending == 0 && s.Parked == 0 {
				return nil
			}
		}
		return fmt.Errorf("%+v", states)
	})
}

func (w *world) letters() *stream.DeadLetters { return stream.NewDeadLetters(w.client, w.keys) }

// dead waits until there are n dead letters and returns them.
func (w *world) dead(n int) []stream.DeadLetter {
	w.Helper()
	var found []stream.DeadLetter
	testserver.Eventually(w, "dead letters", func() error {
		var err error
		if found, err = w.letters().List(w.Context(), stream.Filter{}); err == nil && len(found) != n {
			err = fmt.Errorf("%d of %d", len(found), n)
		}
		return err
	})
	return found
}

// ready waits until the consumer reads.
func (w *world) ready(r *running) {
	w.Helper()
	testserver.Eventually(w, "consumer ready", r.Ready)
}

// within fails the test when c is not closed or sent to soon.
func within[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func readScript(t testing.TB, name string) string {
	t.Helper()
	source, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(source)
}

var errFails = errors.New("it fails")
