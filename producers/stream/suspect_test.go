package stream_test

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

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
