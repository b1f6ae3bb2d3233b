package stream_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// A deploy, which replaces four workers one after the other under load, loses
// nothing and redelivers nothing.
func TestRollingRestartRedeliversNothing(t *testing.T) {
	w, l := newWorld(t), newLedger()
	const events = 4000
	o := stream.ConsumerOptions{BatchSize: 10, Concurrency: 2, ClaimAfter: 3 * time.Second}
	worker := func(name string) *running {
		o.Name = name
		return w.consume(o, func(ctx context.Context, batch []*message.Message) []error {
			time.Sleep(time.Millisecond) // the work
			return l.handle(ctx, batch)
		})
	}
	workers := make([]*running, 4)
	for i := range workers {
		workers[i] = worker(fmt.Sprintf("old-%d", i))
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		p := w.publisher(stream.PublisherOptions{})
		all := changed("books", events)
		for i := 0; i < events; i += 20 {
			if _, err := p.Append(w.Context(), all[i:i+20]...); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := range workers {
		w.await(l, events/8*(i+1))
		workers[i].stop()
		workers[i] = worker(fmt.Sprintf("new-%d", i))
	}
	<-written
	w.await(l, events)
	w.settled("g", "books")
	for _, r := range workers {
		r.stop()
	}
	if got, repeats := l.repeats(); got != events || repeats != 0 {
		t.Errorf("%d events and %d repeats; want %d and 0", got, repeats, events)
	}
	consumers := w.client.XInfoConsumers(t.Context(), w.keys.Topic("books"), "g").Val()
	for _, c := range consumers {
		if c.Pending > 0 || c.Name[:3] == "new" {
			t.Errorf("consumer %+v is left behind", c)
		}
	}
}

func TestShutdownFinishesWhatIsInFlight(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(append(changed("books", 20), changed("users", 10)...)...) // one read brings 10 of each, for one handler
	begun, end := make(chan struct{}, 1), make(chan struct{})
	r := w.consume(stream.ConsumerOptions{Name: "me", Topics: []string{"books", "users"}, BatchSize: 10, Concurrency: 1, ClaimAfter: never},
		func(ctx context.Context, batch []*message.Message) []error {
			begun <- struct{}{}
			<-end
			if ctx.Err() != nil {
				t.Error("the handler's context ended with Run's")
			}
			return l.handle(ctx, batch)
		})
	within(t, "the handler", begun)
	r.cancel()
	select {
	case <-r.done:
		t.Error("Run returned before its handler")
	case <-time.After(50 * time.Millisecond):
	}
	close(end)
	within(t, "the end of Run", r.done)
	if events, _ := l.repeats(); events != 10 {
		t.Errorf("%d events handled; want the 10 that were in flight", events)
	}
	states, err := stream.Groups(t.Context(), w.client, w.keys, []string{"books", "users"})
	if err != nil || len(states) != 2 || states[0].Pending != 0 || states[0].Lag != 10 || states[1].Pending != 10 {
		t.Errorf("Groups = %+v, %v; want 10 books that nobody read and 10 users that were handed back", states, err)
	}
	w.consume(stream.ConsumerOptions{Name: "other", Topics: []string{"books", "users"}, ClaimAfter: time.Second}, func(ctx context.Context, batch []*message.Message) []error {
		for _, m := range batch {
			if entry, _ := stream.EntryOf(m); entry.Deliveries != 1 {
				t.Errorf("%s says that it was delivered before", m.UUID)
			}
		}
		return l.handle(ctx, batch)
	})
	w.await(l, 30)
	w.settled("g", "books")
	w.settled("g", "users")
	if _, repeats := l.repeats(); repeats != 0 {
		t.Errorf("%d repeats", repeats)
	}
}

// A handler that does not come to an end is told to after Grace; its events come
// again and the delivery does not count.
func TestGraceEnds(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 3)...)
	begun := make(chan struct{}, 1)
	r := w.consume(stream.ConsumerOptions{Grace: 20 * time.Millisecond}, func(ctx context.Context, batch []*message.Message) []error {
		begun <- struct{}{}
		<-ctx.Done()
		errs := make([]error, len(batch))
		for i := range errs {
			errs[i] = fmt.Errorf("load: %w", ctx.Err())
		}
		return errs
	})
	within(t, "the handler", begun)
	r.stop()
	w.consume(stream.ConsumerOptions{MaxDeliveries: 1, ClaimAfter: 100 * time.Millisecond}, l.handle)
	w.await(l, 3)
	w.settled("g", "books")
	w.dead(0)
}

// An idle consumer waits in a read of seconds; shutdown does not wait for it.
func TestIdleConsumerStopsAtOnce(t *testing.T) {
	w, l := newWorld(t), newLedger()
	r := w.consume(stream.ConsumerOptions{}, l.handle)
	w.ready(r)
	w.append(changed("books", 1)...)
	w.settled("g", "books")
	begun := time.Now()
	r.stop()
	if took := time.Since(begun); took > time.Second {
		t.Errorf("stopping took %s", took)
	}
	if r.Ready() == nil {
		t.Error("ready after the end")
	}
}

// A parked event is due again when whoever took it is gone, and that delivery
// counts.
func TestParkedEventOfTheDeadComesBack(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 1)...)
	failed := make(chan struct{}, 1)
	r := w.consume(stream.ConsumerOptions{Backoff: 2}, func(_ context.Context, batch []*message.Message) []error {
		failed <- struct{}{}
		return []error{errFails}
	})
	within(t, "the first delivery", failed)
	r.cancel()
	for len(failed) > 0 {
		<-failed
	}
	within(t, "the end of Run", r.done)
	take, err := os.ReadFile("take.lua") // as a process does that dies at once
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	testserver.Eventually(t, "due", func() error {
		reply, err := w.client.Eval(t.Context(), string(take),
			[]string{w.keys.Parked("g", "books"), w.keys.ParkedEntries("g", "books")}, 10, 150, 4, 1<<20).Slice()
		if err == nil && len(reply) != 6 {
			err = fmt.Errorf("took %v", reply)
		}
		if err == nil {
			taken = int(reply[4].(int64))
		}
		return err
	})
	w.consume(stream.ConsumerOptions{}, func(ctx context.Context, batch []*message.Message) []error {
		if entry, _ := stream.EntryOf(batch[0]); entry.Deliveries != taken+1 {
			t.Errorf("delivery %d; want %d", entry.Deliveries, taken+1)
		}
		return l.handle(ctx, batch)
	})
	w.await(l, 1)
	w.settled("g", "books")
}
