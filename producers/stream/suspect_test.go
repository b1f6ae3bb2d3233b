package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// An event that kills its process is pending together with innocent ones:
//
//  1. a process takes over twenty entries and dies of the first, again and again;
//  2. each time, all twenty count as delivered once more;
//  3. after MaxDeliveries all twenty would be dead letters, nineteen of them events
//     that nothing is wrong with, an invalidation perhaps.
func TestWhatKillsTheProcessDoesNotSpendItsNeighbours(t *testing.T) {
	w, l := newWorld(t), newLedger()
	ids := w.append(changed("books", 20)...)
	books := w.keys.Topic("books")
	if err := w.client.XGroupCreate(t.Context(), books, "g", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "g", Consumer: "killed", Streams: []string{books, ">"}}).Err(); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := w.client.Do(t.Context(), "XCLAIM", books, "g", "killed", 0, id, "IDLE", time.Hour.Milliseconds(), "RETRYCOUNT", 4, "JUSTID").Err(); err != nil {
			t.Fatal(err)
		}
	}
	killing, killed := make(chan struct{}), make(chan struct{})
	w.consume(stream.ConsumerOptions{ClaimAfter: 300 * time.Millisecond}, func(ctx context.Context, batch []*message.Message) []error {
		if entry, _ := stream.EntryOf(batch[0]); entry.ID == ids[0] {
			close(killing)
			<-killed
		}
		return l.handle(ctx, batch)
	})
	within(t, "the first to be handled", killing)
	pending, err := w.client.XPendingExt(t.Context(), &redis.XPendingExtArgs{Stream: books, Group: "g", Start: "-", End: "+", Count: 20}).Result()
	close(killed)
	if err != nil || len(pending) != 20 {
		t.Fatalf("%d are pending: %v", len(pending), err)
	}
	for _, p := range pending[1:] {
		if p.RetryCount != 4 {
			t.Errorf("%s counts as delivered %d times", p.ID, p.RetryCount)
		}
	}
	w.await(l, 20)
	w.settled("g", "books")
	if _, repeats := l.repeats(); repeats != 0 || l.most != 1 {
		t.Errorf("%d repeats, up to %d at a time", repeats, l.most)
	}
	w.dead(0)
}

// The same of what is parked: a process that died of one of many parked events had
// taken them all. When next they are due, they are taken one by one.
func TestWhatKillsTheProcessDoesNotSpendParkedNeighbours(t *testing.T) {
	w, l := newWorld(t), newLedger()
	ids := w.append(changed("books", 20)...)
	failing := w.consume(stream.ConsumerOptions{Backoff: time.Hour}, failAll)
	w.parked("g", "books", 20)
	failing.stop()
	w.dueNow("g", "books", ids)

	taken := make(chan int, 20)
	w.dies(stream.ConsumerOptions{MaxDeliveries: 4, ClaimAfter: time.Second}, taken)
	n := within(t, "the events to be taken", taken)
	if n != 20 {
		t.Fatalf("%d were taken together; want all 20", n)
	}
	entries := w.keys.ParkedEntries("g", "books")
	deliveries := func(id string) string { return w.client.HGet(t.Context(), entries, id+" n").Val() }
	killing, killed := make(chan string, 20), make(chan struct{})
	w.consume(stream.ConsumerOptions{MaxDeliveries: 4}, func(ctx context.Context, batch []*message.Message) []error {
		entry, _ := stream.EntryOf(batch[0])
		killing <- entry.ID
		<-killed
		return l.handle(ctx, batch)
	})
	first := within(t, "the first to be handled", killing)
	w.append(changed("books", 21)[20])
	fresh := within(t, "what is new to be handled meanwhile", killing)
	if slices.Contains(ids, fresh) {
		t.Errorf("%s is handled beside a suspect", fresh)
	}
	for _, id := range ids {
		if n := deliveries(id); id != first && n != "2" {
			t.Errorf("%s counts as delivered %s times beside a suspect", id, n)
		}
	}
	if n := deliveries(first); n != "3" {
		t.Errorf("the suspect counts as delivered %s times", n)
	}
	close(killed)
	w.await(l, 21)
	w.settled("g", "books")
	if l.most != 1 {
		t.Errorf("up to %d at a time", l.most)
	}
	w.dead(0)
}

// What was taken before a suspect is done, or nearly so, before the suspect is handled.
func TestASuspectWaitsForThoseTakenBefore(t *testing.T) {
	w := newWorld(t)
	ids := w.append(changed("books", 2)...)
	failing := w.consume(stream.ConsumerOptions{Backoff: time.Hour}, failAll)
	w.parked("g", "books", 2)
	failing.stop()
	parked, entries := w.keys.Parked("g", "books"), w.keys.ParkedEntries("g", "books")
	w.client.HSet(t.Context(), entries, ids[1]+" n", 4)
	w.client.ZAdd(t.Context(), parked, redis.Z{Score: 1, Member: ids[0]}, redis.Z{Score: 1.5, Member: ids[1]})
	handling, slow := make(chan string, 3), make(chan struct{})
	w.consume(stream.ConsumerOptions{ClaimAfter: time.Minute}, func(_ context.Context, batch []*message.Message) []error {
		entry, _ := stream.EntryOf(batch[0])
		handling <- entry.ID
		if entry.ID == ids[0] {
			<-slow
		}
		return nil
	})
	if id := within(t, "the first to be handled", handling); id != ids[0] {
		t.Errorf("%s is handled first; want %s, which is no suspect", id, ids[0])
	}
	testserver.Eventually(t, "suspect taken", func() error {
		if n := w.client.HGet(t.Context(), entries, ids[1]+" n").Val(); n != "5" {
			return errors.New(n)
		}
		return nil
	})
	w.append(changed("books", 3)[2])
	if id := within(t, "what is new to be handled meanwhile", handling); id == ids[1] {
		t.Error("the suspect does not wait")
	}
	close(slow)
	if id := within(t, "the suspect to be handled", handling); id != ids[1] {
		t.Errorf("%s is handled; want the suspect", id)
	}
	w.settled("g", "books")
}

// Who fails with an answer kills nobody: such events come back together, however
// often that was.
func TestWhatFailsOftenComesBackTogether(t *testing.T) {
	w, l := newWorld(t), newLedger()
	ids := w.append(changed("books", 20)...)
	failing := w.consume(stream.ConsumerOptions{Backoff: time.Hour}, failAll)
	w.parked("g", "books", 20)
	failing.stop()
	for _, id := range ids {
		w.client.HSet(t.Context(), w.keys.ParkedEntries("g", "books"), id+" n", 6)
	}
	w.dueNow("g", "books", ids)
	w.consume(stream.ConsumerOptions{}, l.handle)
	w.await(l, 20)
	w.settled("g", "books")
	if l.most != 20 {
		t.Errorf("up to %d at a time; want all 20", l.most)
	}
}

func failAll(_ context.Context, batch []*message.Message) []error {
	return slices.Repeat([]error{errFails}, len(batch))
}

// parked waits until so many events of a topic are parked.
func (w *world) parked(group, topic string, n int64) {
	w.Helper()
	testserver.Eventually(w, "events parked", func() error {
		if got := w.client.ZCard(w.Context(), w.keys.Parked(group, topic)).Val(); got != n {
			return fmt.Errorf("%d of %d", got, n)
		}
		return nil
	})
}

// dueNow makes parked events due.
func (w *world) dueNow(group, topic string, ids []string) {
	w.Helper()
	for _, id := range ids {
		if err := w.client.ZAddXX(w.Context(), w.keys.Parked(group, topic), redis.Z{Score: 1, Member: id}).Err(); err != nil {
			w.Fatal(err)
		}
	}
}

// dies runs a consumer that loses its Redis in the middle of its first batch of
// parked events, after it has shown that it lives, as a process does that is killed
// there. It says how many events it had.
func (w *world) dies(o stream.ConsumerOptions, had chan<- int) {
	w.Helper()
	var own redis.UniversalClient
	dial := func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		var err error
		own, err = w.dial(onConnect)
		return own, err
	}
	o.Group, o.Topics, o.Grace, o.Log = "g", []string{"books"}, time.Millisecond, zerolog.Nop()
	c, err := stream.NewConsumer(dial, w.keys, func(_ context.Context, batch []*message.Message) []error {
		entry, _ := stream.EntryOf(batch[0])
		due := func() float64 { return w.client.ZScore(w.Context(), w.keys.Parked("g", "books"), entry.ID).Val() }
		first := due()
		testserver.Eventually(w, "sign of life", func() error {
			if due() == first {
				return errors.New("none")
			}
			return nil
		})
		own.Close()
		had <- len(batch)
		return make([]error, len(batch))
	}, o)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	w.Cleanup(func() {
		cancel()
		within(w, "the end of the dead", done)
	})
}
