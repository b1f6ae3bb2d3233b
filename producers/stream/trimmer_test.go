package stream_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// fill writes entries to topic books that are ten minutes old, and some that are not.
func (w *world) fill(old, young int) {
	w.Helper()
	w.write("books", old, 10*time.Minute)
	w.write("books", young, 0)
}

// write writes n entries of that age.
func (w *world) write(topic string, n int, age time.Duration) {
	w.Helper()
	pipe := w.client.Pipeline()
	at := time.Now().Add(-age).UnixMilli()
	for i := range n {
		id := "*"
		if age > 0 {
			id = fmt.Sprintf("%d-%d", at, i+1)
		}
		pipe.XAdd(w.Context(), &redis.XAddArgs{Stream: w.keys.Topic(topic), ID: id, Values: []any{"n", i}})
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

// Streams that no group of the trimmer's reads are found among many keys. Those that
// nobody reads keep a day; those that somebody reads keep what is unacknowledged.
func TestTopicsOfOthersAreTrimmed(t *testing.T) {
	w := newWorld(t)
	w.keys = stream.NewKeys("te[s]*t:") // which a pattern must take by the letter
	const day = 24 * time.Hour
	for topic, age := range map[string]time.Duration{"unread": day + time.Minute, "younger": day - time.Minute, "read": time.Hour, "half": time.Hour, "dead": 2 * day} {
		w.write(topic, 1000, age)
		w.write(topic, 50, 0)
	}
	elsewhere := stream.NewKeys("tes*t:").Topic("unread")
	w.client.XAdd(t.Context(), &redis.XAddArgs{Stream: elsewhere, ID: "1-1", Values: []any{"n", 1}})
	for topic, acknowledged := range map[string]int64{"read": 1050, "half": 500} {
		key := w.keys.Topic(topic)
		w.client.XGroupCreate(t.Context(), key, "theirs", "0")
		found, err := w.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "theirs", Consumer: "c", Streams: []string{key, ">"}, Count: acknowledged}).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range found[0].Messages {
			w.client.XAck(t.Context(), key, "theirs", m.ID)
		}
	}
	w.client.Set(t.Context(), w.keys.Topic("no stream"), "at all", 0)
	pipe := w.client.Pipeline()
	for i := range 60_000 {
		pipe.Set(t.Context(), fmt.Sprintf("te[s]*t:entry:%d", i), "", 0)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	trimmer := w.trimmer(stream.TrimmerOptions{Groups: map[string][]string{"a": {"books"}}, Metrics: registry})
	total := int64(0)
	for round := range 5 { // a search takes as many rounds as it must; the next is a minute off
		n, err := trimmer.Trim(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		total += n
		if calls := w.client.InfoMap(t.Context(), "commandstats").Val()["Commandstats"]["cmdstat_scan"]; round == 0 && !strings.HasPrefix(calls, "calls=20,") {
			t.Errorf("the first round scanned %s; want 20 calls", calls)
		}
	}
	for topic, want := range map[string][2]int64{"unread": {50, 150}, "younger": {1050, 1050}, "read": {50, 150}, "half": {550, 650}, "dead": {1050, 1050}} {
		if n := w.client.XLen(t.Context(), w.keys.Topic(topic)).Val(); n < want[0] || n > want[1] {
			t.Errorf("%s: %d entries are left; want %v", topic, n, want)
		}
	}
	if n := w.client.XLen(t.Context(), elsewhere).Val(); n != 1 {
		t.Error("a stream under another prefix was trimmed")
	}
	if counts := w.counts(registry, "mythic_cache_stream_trimmed_total"); counts["other"] != float64(total) {
		t.Errorf("metrics say %v; want %d of others", counts, total)
	}
	w.write("late", 1000, 2*day)
	if n, err := trimmer.Trim(t.Context()); n != 0 || err != nil {
		t.Errorf("%d, %v: streams are searched for all the time", n, err)
	}
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
		"no groups":          {},
		"less than 2m":       {Groups: groups, Keep: time.Minute},
		"Interval or Look":   {Groups: groups, Interval: -1},
		"Look is negative":   {Groups: groups, Look: -1},
		"KeepUnread is 3m0s": {Groups: groups, Keep: time.Hour, KeepUnread: 3 * time.Minute},
	} {
		if _, err := stream.NewTrimmer(w.dial, w.keys, o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v; want %q", o, err, says)
		}
	}
}
