package stream_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// old writes n entries that are ten minutes old, and new ones that are not.
func (w *world) fill(old, young int) {
	w.Helper()
	pipe := w.client.Pipeline()
	at := time.Now().Add(-10 * time.Minute).UnixMilli()
	for i := range old {
		pipe.XAdd(w.Context(), &redis.XAddArgs{Stream: w.keys.Topic("books"), ID: fmt.Sprintf("%d-%d", at, i+1), Values: []any{"n", i}})
	}
	for i := range young {
		pipe.XAdd(w.Context(), &redis.XAddArgs{Stream: w.keys.Topic("books"), Values: []any{"n", old + i}})
	}
	if _, err := pipe.Exec(w.Context()); err != nil {
		w.Fatal(err)
	}
}

func (w *world) trimmer(o stream.TrimmerOptions) *stream.Trimmer {
	w.Helper()
	o.Log = w.log()
	trimmer, err := stream.NewTrimmer(w.dial, w.keys, o)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { // Run closes the client
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		trimmer.Run(ctx)
	})
	return trimmer
}

func TestTrimmingNeverRemovesWhatIsUnacknowledged(t *testing.T) {
	w := newWorld(t)
	key := w.keys.Topic("books")
	trimmer := w.trimmer(stream.TrimmerOptions{Groups: map[string][]string{"a": {"books", "users"}, "b": {"books"}}})
	trim := func(says string, least, most int64) {
		t.Helper()
		if removed, err := trimmer.Trim(t.Context()); err != nil || removed < least || removed > most {
			t.Errorf("%s: %d removed, %v; want %d to %d", says, removed, err, least, most)
		}
	}
	read := func(group string, n int64) []string {
		t.Helper()
		found, err := w.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: group, Consumer: "c", Streams: []string{key, ">"}, Count: n}).Result()
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, m := range found[0].Messages {
			ids = append(ids, m.ID)
		}
		return ids
	}
	ack := func(group string, ids ...string) { w.client.XAck(t.Context(), key, group, ids...) }

	trim("no stream", 0, 0)
	w.fill(14_000, 300)
	trim("no group", 0, 0)
	w.client.XGroupCreate(t.Context(), key, "a", "0")
	a := read("a", 30_000)
	ack("a", a...)
	trim("one of two groups", 0, 0)
	w.client.XGroupCreate(t.Context(), key, "b", "0")
	trim("nothing read by the second", 0, 0)
	b := read("b", 12_000)
	ack("b", b[1:]...)
	trim("the first entry is pending", 0, 0)
	ack("b", b[0])
	trim("b has acknowledged 12,000", 11_800, 11_999)
	read("b", 1)
	b = read("b", 30_000)
	ack("b", b...)
	trim("one is pending", 0, 200)
	if left := w.client.XRange(t.Context(), key, a[12_000], a[12_000]).Val(); len(left) != 1 {
		t.Error("the pending entry was trimmed")
	}
	ack("b", a[12_000])
	trim("all are acknowledged", 1_700, 2_100)
	if n := w.client.XLen(t.Context(), key).Val(); n < 300 || n > 500 {
		t.Errorf("%d entries are left; want the 300 that are young and at most a node or two", n)
	}
	if left := w.client.XRange(t.Context(), key, a[14_000], "+").Val(); len(left) != 300 {
		t.Errorf("%d of 300 young entries are left", len(left))
	}

	// A group that is destroyed reads all again when it is back: nothing goes meanwhile.
	w.client.XTrimMaxLen(t.Context(), key, 0)
	w.client.Del(t.Context(), key)
	w.fill(1000, 0)
	w.client.XGroupCreate(t.Context(), key, "a", "0")
	ack("a", read("a", 1000)...)
	trim("b is destroyed", 0, 0)
}

func TestTrimmerRuns(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.fill(1000, 0)
	r := w.consume(stream.ConsumerOptions{}, l.handle)
	w.dead(1000) // what fill writes is no event
	r.stop()
	trimmer, err := stream.NewTrimmer(w.dial, w.keys, stream.TrimmerOptions{
		Groups: map[string][]string{"g": {"books"}}, Interval: time.Millisecond, Log: w.log(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- trimmer.Run(ctx) }()
	testserver.Eventually(t, "trimmed", func() error {
		if n := w.client.XLen(t.Context(), w.keys.Topic("books")).Val(); n > 200 {
			return fmt.Errorf("%d entries", n)
		}
		return nil
	})
	cancel()
	if err := within(t, "the end of Run", done); err != nil {
		t.Error(err)
	}
}

func TestTrimmerOptionsAreChecked(t *testing.T) {
	w := newWorld(t)
	groups := map[string][]string{"g": {"books"}}
	for says, o := range map[string]stream.TrimmerOptions{
		"no groups":            {},
		"less than 2m":         {Groups: groups, Keep: time.Minute},
		"Interval is negative": {Groups: groups, Interval: -1},
	} {
		if _, err := stream.NewTrimmer(w.dial, w.keys, o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v; want %q", o, err, says)
		}
	}
}
