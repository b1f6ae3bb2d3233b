package stream_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// refuseAll is a BatchHandler that can do nothing with any event.
func refuseAll(_ context.Context, batch []*message.Message) []error {
	errs := make([]error, len(batch))
	for i, m := range batch {
		errs[i] = fmt.Errorf("%w: Because of %s", stream.ErrReject, m.UUID)
	}
	return errs
}

// What its handler says stays of an event, and nothing else, wherever it waited.
func TestDeadLetterInStead(t *testing.T) {
	w := newWorld(t)
	w.append(event.Event{ID: "a", Type: "books.asked", Subject: "s", Data: []byte(`"hush"`)})
	w.consume(stream.ConsumerOptions{Topics: []string{"books"}, MaxDeliveries: 2, Backoff: time.Millisecond}, func(context.Context, []*message.Message) []error {
		return []error{fmt.Errorf("handle: %w", stream.InStead(errors.New("no luck"), event.FieldType, "books.asked", "data", `{"key":"k"}`))}
	})
	letter := w.dead(1)[0]
	want := map[string]string{event.FieldType: "books.asked", "data": `{"key":"k"}`}
	if !maps.Equal(letter.Fields, want) || letter.Type != "books.asked" || letter.Topic != "books" || letter.Deliveries != 2 || letter.Reason != "handle: no luck" {
		t.Errorf("the letter is %+v", letter)
	}
	for _, key := range w.client.Keys(t.Context(), "*parked*").Val() {
		t.Errorf("something is left in %s", key)
	}
}

func TestDeadLettersAreSelected(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 60)...)
	w.append(changed("users", 60)...)
	w.append(event.Event{ID: "moved", Type: "books.moved", Subject: "s"})
	w.consume(stream.ConsumerOptions{Topics: []string{"books", "users"}, BatchSize: 7}, refuseAll)
	all := w.dead(121)
	ctx, letters := t.Context(), w.letters()
	user := all[slices.IndexFunc(all, func(l stream.DeadLetter) bool { return l.Topic == "users" })].ID
	book := all[slices.IndexFunc(all, func(l stream.DeadLetter) bool { return l.Type == "books.changed" })].ID
	for name, c := range map[string]struct {
		filter stream.Filter
		want   int
	}{
		"all": {stream.Filter{}, 121}, "topic": {stream.Filter{Topic: "users"}, 60}, "type": {stream.Filter{Type: "books.moved"}, 1},
		"group": {stream.Filter{Group: "other"}, 0}, "reason": {stream.Filter{Reason: "because of USERS-5"}, 11},
		"young": {stream.Filter{OlderThan: time.Hour}, 0}, "old": {stream.Filter{OlderThan: 1}, 121}, "limit": {stream.Filter{Limit: 3}, 3},
		"no part of a type":   {stream.Filter{Type: "books"}, 0},
		"ids":                 {stream.Filter{IDs: []string{user, book}}, 2},
		"an id twice":         {stream.Filter{IDs: []string{user, user}}, 1},
		"ids, of which 1 is":  {stream.Filter{IDs: []string{"1-1", user}}, 1},
		"ids and limit":       {stream.Filter{IDs: []string{user, book}, Limit: 1}, 1},
		"ids and topic":       {stream.Filter{IDs: []string{user, book}, Topic: "users"}, 1},
		"topic and type":      {stream.Filter{Topic: "books", Type: "books.changed"}, 60},
		"topic, another type": {stream.Filter{Topic: "users", Type: "books.changed"}, 0},
		"topic and reason":    {stream.Filter{Topic: "books", Reason: "because of books-1"}, 11},
		"topic, reason, old":  {stream.Filter{Topic: "books", Reason: "because of books-1", OlderThan: 1}, 11},
		"reason, young":       {stream.Filter{Reason: "because", OlderThan: time.Hour}, 0},
		"all at once":         {stream.Filter{IDs: []string{user}, Topic: "users", Group: "g", Type: "users.changed", Reason: "users", OlderThan: 1, Limit: 9}, 1},
	} {
		if got, err := letters.List(ctx, c.filter); err != nil || len(got) != c.want {
			t.Errorf("%s: %d letters, %v; want %d", name, len(got), err, c.want)
		}
		n := 0
		if err := letters.Each(ctx, c.filter, func(stream.DeadLetter) error { n++; return nil }); err != nil || n != c.want {
			t.Errorf("%s: %d of each, %v; want %d", name, n, err, c.want)
		}
	}
	for i, m := range w.client.XRange(ctx, w.keys.Dead(), "-", "+").Val() {
		if all[i].ID != m.ID {
			t.Fatalf("letter %d is %s; want %s, the oldest first", i, all[i].ID, m.ID)
		}
	}
	if l, err := letters.Show(ctx, all[7].ID); err != nil || l.Reason != all[7].Reason || l.Fields["view"] != "v" {
		t.Errorf("Show = %+v, %v", l, err)
	}
	if n, err := letters.Drop(ctx, stream.Filter{Topic: "users", Reason: "because of users-5"}); n != 11 || err != nil {
		t.Errorf("Drop = %d, %v", n, err)
	}
	if n, err := letters.Drop(ctx, stream.Filter{IDs: []string{book, "1-1"}}); n != 1 || err != nil {
		t.Errorf("Drop of ids = %d, %v", n, err)
	}
	for _, id := range []string{"1-1", "all", "-", "0", "", "1-1-1", "-1", "(" + book} {
		if _, err := letters.Show(ctx, id); !errors.Is(err, stream.ErrNoDeadLetter) {
			t.Errorf("Show(%q) = %v", id, err)
		}
		if id == "1-1" {
			continue
		}
		if n, err := letters.Drop(ctx, stream.Filter{IDs: []string{id}}); n != 0 || err == nil {
			t.Errorf("Drop of id %q = %d, %v", id, n, err)
		}
	}
	w.dead(109)
}

func TestDeadLettersAreCounted(t *testing.T) {
	w := newWorld(t)
	ctx, letters := t.Context(), w.letters()
	of := func(topic string) stream.GroupTopic { return stream.GroupTopic{Group: "g", Topic: topic} }
	count := func(books, users int64) {
		t.Helper()
		for range 2 { // the second time from what the first has seen
			if counts, err := letters.Count(ctx); err != nil || counts[of("books")] != books || counts[of("users")] != users {
				t.Errorf("Count = %v, %v; want %d and %d", counts, err, books, users)
			}
		}
	}
	count(0, 0)
	if size, err := letters.Size(ctx); size != 0 || err != nil {
		t.Errorf("no letters have %d bytes, %v", size, err)
	}
	w.append(changed("books", 600)...)
	w.append(changed("users", 60)...)
	w.consume(stream.ConsumerOptions{Topics: []string{"books", "users"}}, refuseAll)
	w.dead(660)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := letters.Count(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("Count of a canceled context: %v", err)
	}
	count(600, 60)
	if size, err := letters.Size(ctx); size < 50_000 || size > 1_000_000 || err != nil {
		t.Errorf("660 letters have %d bytes, %v", size, err)
	}
	if n, err := letters.Drop(ctx, stream.Filter{Topic: "users"}); n != 60 || err != nil {
		t.Errorf("Drop = %d, %v", n, err)
	}
	count(600, 0)
	w.append(changed("books", 3)...)
	w.dead(603)
	count(603, 0)
	w.client.FlushAll(ctx)
	count(0, 0)
	w.append(changed("books", 70)...)
	w.dead(70)
	count(70, 0)
}

// Of a large letter, only who wants its fields pays for them.
func TestLargeDeadLettersAreListedByTheirHeads(t *testing.T) {
	w := newWorld(t)
	const letters, megabytes = 3, 5
	large := strings.Repeat("x", megabytes<<20)
	many := map[string]any{"type": "books.packed"}
	for i := range 3000 {
		many[fmt.Sprintf("f%d", i)] = "v"
	}
	for range letters {
		if err := w.client.XAdd(t.Context(), &redis.XAddArgs{Stream: w.keys.Topic("books"), Values: []any{"type", "books.changed", "data", large}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, values := range []any{many, []any{"_watermill_message_uuid", "u", "metadata", large}} {
		if err := w.client.XAdd(t.Context(), &redis.XAddArgs{Stream: w.keys.Topic("books"), Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	r := w.consume(stream.ConsumerOptions{}, refuseAll)
	testserver.Eventually(t, "dead letters", func() error {
		if n := w.client.XLen(t.Context(), w.keys.Dead()).Val(); n != letters+2 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	r.stop()
	sent := func() int64 {
		n, err := strconv.ParseInt(w.client.InfoMap(t.Context(), "stats").Val()["Stats"]["total_net_output_bytes"], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before, types := sent(), map[string]int{}
	if err := w.letters().Each(t.Context(), stream.Filter{}, func(l stream.DeadLetter) error {
		types[l.Type]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if types["books.changed"] != letters || types["books.packed"] != 1 || types[""] != 1 {
		t.Errorf("types %v", types)
	}
	if _, err := w.letters().Count(t.Context()); err != nil {
		t.Error(err)
	}
	if bytes := sent() - before; bytes > 1<<20 {
		t.Errorf("listing and counting %d letters of %d MB brought %d bytes", letters, megabytes, bytes)
	}
	if n, err := w.letters().Replay(t.Context(), stream.Filter{}); n != letters+2 || err != nil {
		t.Errorf("Replay = %d, %v", n, err)
	}
}

// Several operators replay at a time, one of whom is gone before it is done: each
// event comes back once, and to the group that gave it up alone.
func TestReplayIsIdempotent(t *testing.T) {
	const letters = 1000
	w, mended, other := newWorld(t), newLedger(), newLedger()
	w.append(changed("books", letters)...)
	var works atomic.Bool
	w.consume(stream.ConsumerOptions{}, func(ctx context.Context, batch []*message.Message) []error {
		if works.Load() {
			return mended.handle(ctx, batch)
		}
		return slices.Repeat([]error{stream.ErrReject}, len(batch))
	})
	w.consume(stream.ConsumerOptions{Group: "other"}, other.handle)
	w.dead(letters)
	works.Store(true)
	var replayed atomic.Int32
	replay := func(f stream.Filter) {
		n, err := w.letters().Replay(t.Context(), f)
		if err != nil {
			t.Error(err)
		}
		replayed.Add(int32(n))
	}
	replay(stream.Filter{Limit: 300}) // of one who dies then, nothing more is heard
	var operators sync.WaitGroup
	for range 2 {
		operators.Go(func() { replay(stream.Filter{}) })
	}
	operators.Wait()
	replay(stream.Filter{})
	w.await(mended, letters)
	w.settled("g", "books")
	w.settled("other", "books")
	if _, repeats := mended.repeats(); repeats != 0 || replayed.Load() != letters {
		t.Errorf("%d replayed, %d repeats", replayed.Load(), repeats)
	}
	if events, repeats := other.repeats(); events != letters || repeats != 0 {
		t.Errorf("the other group had %d events and %d repeats", events, repeats)
	}
}

// Whoever writes to the dead letters by hand names no group: nobody could be given
// such an event, and the others must not wait for it.
func TestReplayKeepsWhatSaysOfNoGroup(t *testing.T) {
	w, l := newWorld(t), newLedger()
	id := w.client.XAdd(t.Context(), &redis.XAddArgs{Stream: w.keys.Dead(), Values: []any{"type", "books.changed"}}).Val()
	w.append(changed("books", 5)...)
	var works atomic.Bool
	w.consume(stream.ConsumerOptions{}, func(ctx context.Context, batch []*message.Message) []error {
		if works.Load() {
			return l.handle(ctx, batch)
		}
		return refuseAll(ctx, batch)
	})
	w.dead(6)
	works.Store(true)
	if n, err := w.letters().Replay(t.Context(), stream.Filter{}); n != 5 || err == nil || !strings.Contains(err.Error(), id) {
		t.Errorf("Replay = %d, %v; want 5 and an error that names %s", n, err, id)
	}
	w.await(l, 5)
	if left := w.dead(1); left[0].ID != id || left[0].Type != "books.changed" {
		t.Errorf("left %+v", left)
	}
}
