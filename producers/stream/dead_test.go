package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

func TestDeadLettersAreSelected(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 60)...)
	w.append(changed("users", 60)...)
	w.append(event.Event{ID: "moved", Type: "books.moved", Subject: "s"})
	w.consume(stream.ConsumerOptions{Topics: []string{"books", "users"}, BatchSize: 7}, func(_ context.Context, batch []*message.Message) []error {
		errs := make([]error, len(batch))
		for i, m := range batch {
			errs[i] = fmt.Errorf("%w: Because of %s", stream.ErrReject, m.UUID)
		}
		return errs
	})
	all := w.dead(121)
	ctx, letters := t.Context(), w.letters()
	for name, c := range map[string]struct {
		filter stream.Filter
		want   int
	}{
		"all": {stream.Filter{}, 121}, "topic": {stream.Filter{Topic: "users"}, 60}, "type": {stream.Filter{Type: "books.moved"}, 1},
		"group": {stream.Filter{Group: "other"}, 0}, "reason": {stream.Filter{Reason: "because of USERS-5"}, 11},
		"young": {stream.Filter{OlderThan: time.Hour}, 0}, "old": {stream.Filter{OlderThan: 1}, 121}, "limit": {stream.Filter{Limit: 3}, 3},
		"ids": {stream.Filter{IDs: []string{all[4].ID, all[100].ID}}, 2},
	} {
		if got, err := letters.List(ctx, c.filter); err != nil || len(got) != c.want {
			t.Errorf("%s: %d letters, %v; want %d", name, len(got), err, c.want)
		}
	}
	for i, m := range w.client.XRange(ctx, w.keys.Dead(), "-", "+").Val() {
		if all[i].ID != m.ID {
			t.Fatalf("letter %d is %s; want %s, the oldest first", i, all[i].ID, m.ID)
		}
	}
	if l, err := letters.Show(ctx, all[7].ID); err != nil || l.Reason != all[7].Reason {
		t.Errorf("Show = %+v, %v", l, err)
	}
	count := func(want int64) {
		t.Helper()
		for range 2 { // the second time from what the first has seen
			if counts, err := letters.Count(ctx); err != nil || counts["g"] != want {
				t.Errorf("Count = %v, %v; want %d", counts, err, want)
			}
		}
	}
	count(121)
	if n, err := letters.Drop(ctx, stream.Filter{Topic: "users"}); n != 60 || err != nil {
		t.Errorf("Drop = %d, %v", n, err)
	}
	count(61)
	w.append(changed("books", 3)...)
	w.dead(64)
	count(64)
	w.client.FlushAll(ctx)
	count(0)
	w.append(changed("books", 70)...)
	w.dead(70)
	count(70)
	for _, id := range []string{"1-1", "all", "-", "0", ""} {
		if _, err := letters.Show(ctx, id); !errors.Is(err, stream.ErrNoDeadLetter) {
			t.Errorf("Show(%q) = %v", id, err)
		}
	}
}

// Several operators replay at a time: each event comes back once, and to the
// group that gave it up alone.
func TestReplayIsIdempotent(t *testing.T) {
	w, mended, other := newWorld(t), newLedger(), newLedger()
	w.append(changed("books", 100)...)
	var works atomic.Bool
	w.consume(stream.ConsumerOptions{}, func(ctx context.Context, batch []*message.Message) []error {
		if works.Load() {
			return mended.handle(ctx, batch)
		}
		return slices.Repeat([]error{stream.ErrReject}, len(batch))
	})
	w.consume(stream.ConsumerOptions{Group: "other"}, other.handle)
	w.dead(100)
	works.Store(true)
	var replayed atomic.Int32
	var operators sync.WaitGroup
	for range 4 {
		operators.Go(func() {
			n, err := w.letters().Replay(t.Context(), stream.Filter{})
			if err != nil {
				t.Error(err)
			}
			replayed.Add(int32(n))
		})
	}
	operators.Wait()
	w.await(mended, 100)
	w.settled("g", "books")
	w.settled("other", "books")
	if _, repeats := mended.repeats(); repeats != 0 || replayed.Load() != 100 {
		t.Errorf("%d replayed, %d repeats", replayed.Load(), repeats)
	}
	if events, repeats := other.repeats(); events != 100 || repeats != 0 {
		t.Errorf("the other group had %d events and %d repeats", events, repeats)
	}
}
