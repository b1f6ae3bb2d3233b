package consumers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"mythiccache/producers/stream"
)

// Each step is a minute later; a group is stuck after five in which nothing moved.
func TestAStuckGroupIsToldFromASlowOne(t *testing.T) {
	t.Parallel()
	books := func(oldest string, acknowledged int64, age time.Duration) []stream.GroupState {
		return []stream.GroupState{{Group: "invalidate", Topic: "books", Oldest: oldest, Acknowledged: acknowledged, OldestPending: age, Pending: 1}}
	}
	ours, theirs := holds("me-2", 0), holds("another", time.Second)
	for name, c := range map[string]struct {
		reading func(minute int) []stream.GroupState
		holder  func(context.Context, stream.GroupTopic, string) (string, time.Duration, error)
		stuck   [2]int // from which minute on, and until which; 0: never
	}{
		"nothing moves":               {func(m int) []stream.GroupState { return books("1-1", 7, time.Hour) }, ours, [2]int{5, 20}},
		"nobody has read it":          {func(m int) []stream.GroupState { return books("1-1", 7, time.Hour) }, holds("", 0), [2]int{5, 20}},
		"its holder is silent":        {func(m int) []stream.GroupState { return books("1-1", 7, time.Hour) }, holds("another", time.Hour), [2]int{5, 20}},
		"another process holds it":    {func(m int) []stream.GroupState { return books("1-1", 7, time.Hour) }, theirs, [2]int{}},
		"who holds it is not known":   {func(m int) []stream.GroupState { return books("1-1", 7, time.Hour) }, holdsNot, [2]int{}},
		"an old backlog is worked on": {func(m int) []stream.GroupState { return books(fmt.Sprintf("1-%d", m), int64(500*m), time.Hour) }, ours, [2]int{}},
		"one is slow, others go by":   {func(m int) []stream.GroupState { return books("1-1", int64(m), time.Hour) }, ours, [2]int{}},
		"calls of a minute and more":  {func(m int) []stream.GroupState { return books(fmt.Sprintf("1-%d", m/2), int64(m/2), time.Minute) }, ours, [2]int{}},
		"it is young by Redis's clock": {
			func(m int) []stream.GroupState { return books("1-1", 7, 4*time.Minute) }, ours, [2]int{}},
		"nothing waits": {func(m int) []stream.GroupState { return books("", 7, 0) }, ours, [2]int{}},
		"not our group": {func(m int) []stream.GroupState {
			return []stream.GroupState{{Group: "theirs", Topic: "books", Oldest: "1-1", OldestPending: time.Hour}}
		}, ours, [2]int{}},
		"not our topic": {func(m int) []stream.GroupState {
			return []stream.GroupState{{Group: "invalidate", Topic: "users", Oldest: "1-1", OldestPending: time.Hour}}
		}, ours, [2]int{}},
		"a trickle beside what is stuck": {func(m int) []stream.GroupState { return books("1-1", int64(max(7, m)), time.Hour) }, ours, [2]int{5, 20}},
		"it goes on": {func(m int) []stream.GroupState {
			if m < 8 {
				return books("1-1", 7, time.Hour)
			}
			return books(fmt.Sprintf("1-%d", m), int64(m), time.Hour)
		}, ours, [2]int{5, 8}},
		"it is gone": {func(m int) []stream.GroupState {
			if m < 8 {
				return books("1-1", 7, time.Hour)
			}
			return nil
		}, ours, [2]int{5, 8}},
	} {
		s := &stalls{bound: stuckAfter, own: map[string][]string{"invalidate": {"books"}}, name: "me", holder: c.holder, log: zerolog.Nop()}
		for minute := range 20 {
			s.look(t.Context(), c.reading(minute), time.Minute)
			err := s.ready("invalidate")
			if want := minute >= c.stuck[0] && minute < c.stuck[1]; (err != nil) != want {
				t.Errorf("%s, minute %d: %v; want stuck: %t", name, minute, err, want)
			}
			if err != nil && (!strings.Contains(err.Error(), "invalidate") || !strings.Contains(err.Error(), "books")) {
				t.Errorf("%s: %v; want group and topic named", name, err)
			}
		}
	}
}

func holds(consumer string, idle time.Duration) func(context.Context, stream.GroupTopic, string) (string, time.Duration, error) {
	return func(context.Context, stream.GroupTopic, string) (string, time.Duration, error) {
		return consumer, idle, nil
	}
}

func holdsNot(context.Context, stream.GroupTopic, string) (string, time.Duration, error) {
	return "", 0, errors.New("redis is away")
}

// A reporter on a real Redis: its group is stuck while nobody acknowledges, and no
// longer once somebody does. While Redis is away, time does not count.
func TestAReporterNamesItsStuckGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	keys, client := stream.NewKeys("mythic:"), w.redis.Client(t)
	registry := prometheus.NewPedanticRegistry()
	r, err := NewReporter(w.store, ReporterOptions{
		Instance: "me", Keys: keys, Topics: []string{"things"}, Reads: map[string][]string{"invalidate": {"things"}},
		Every: 10 * time.Second, Metrics: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	things := keys.Topic("things")
	if err := client.XGroupCreateMkStream(t.Context(), things, "invalidate", "0").Err(); err != nil {
		t.Fatal(err)
	}
	old := client.XAdd(t.Context(), &redis.XAddArgs{Stream: things, ID: fmt.Sprintf("%d-1", time.Now().Add(-time.Hour).UnixMilli()), Values: []any{"n", 1}}).Val()
	client.XAdd(t.Context(), &redis.XAddArgs{Stream: keys.Dead(), Values: []any{"dead.group", "invalidate", "dead.topic", "things"}})
	if err := client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "invalidate", Consumer: "me", Streams: []string{things, ">"}}).Err(); err != nil {
		t.Fatal(err)
	}
	client.XAdd(t.Context(), &redis.XAddArgs{Stream: things, Values: []any{"n", 2}})
	// look has the reporter look once, so long after it looked the last time.
	look := func(later time.Duration) error {
		t.Helper()
		r.looked = time.Now().Add(-later)
		if err := r.report(t.Context()); err != nil {
			t.Fatal(err)
		}
		return errors.Join(r.Ready("invalidate"), r.Ready("warm"))
	}
	for range 3 {
		if err := look(time.Hour); err != nil { // nobody looked for an hour, which counts as seconds
			t.Errorf("stuck after a gap: %v", err)
		}
	}
	r.stalls.bound = time.Minute
	if err := look(20 * time.Second); err == nil || !strings.Contains(err.Error(), "group invalidate is stuck in topic things: entry "+old) {
		t.Errorf("Ready = %v; want the stuck group", err)
	}
	if err := r.Ready("warm"); err != nil {
		t.Errorf("another group is stuck, too: %v", err)
	}
	got := gauged(t, registry)
	for name, want := range map[string]float64{"lag": 1, "pending": 1, "parked": 0, "dead_letters": 1} {
		if got["mythic_cache_stream_"+name+" invalidate things"] != want {
			t.Errorf("%s is not %v: %v", name, want, got)
		}
	}
	if age := got["mythic_cache_stream_oldest_pending_seconds invalidate things"]; age < 3600 || age > 3660 {
		t.Errorf("the oldest is %v seconds old", age)
	}
	client.XAck(t.Context(), things, "invalidate", old)
	if err := look(20 * time.Second); err != nil {
		t.Errorf("Ready = %v after the entry was acknowledged", err)
	}
	client.Del(t.Context(), things, keys.Dead())
	if err := look(20 * time.Second); err != nil {
		t.Error(err)
	}
	if got := gauged(t, registry); len(got) != 1 {
		t.Errorf("gauges of what is gone: %v", got)
	}
	r.gauges.show(census{at: time.Now().Add(-time.Minute)})
	if got := gauged(t, registry); len(got) != 0 {
		t.Errorf("gauges of long ago: %v", got)
	}
}

// gauged returns all gauges, by name and values of labels.
func gauged(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := []string{family.GetName()}
			for _, label := range metric.GetLabel() {
				name = append(name, label.GetValue())
			}
			values[strings.Join(name, " ")] = metric.GetGauge().GetValue()
		}
	}
	return values
}

// Too many dead letters are said once, and once more when they are few again.
func TestTooManyDeadLettersAreSaidOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	var said strings.Builder
	r, err := NewReporter(w.store, ReporterOptions{Instance: "me", Keys: stream.NewKeys("mythic:"), Log: zerolog.New(&said)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		letters, bytes int64
		says           string
	}{
		{stream.DeadMost, stream.DeadMostBytes, ""},
		{stream.DeadMost + 1, 0, "too many"}, {stream.DeadMost * 2, 0, ""}, {stream.DeadMost - 1, 0, ""},
		{stream.DeadMost / 2, 0, "few again"}, {1, 0, ""},
		{1, stream.DeadMostBytes + 1, "too many"}, {0, 0, "few again"},
	} {
		said.Reset()
		r.watchDead(census{dead: map[stream.GroupTopic]int64{{Group: "g", Topic: "t"}: c.letters}, bytes: c.bytes})
		if got := said.String(); !strings.Contains(got, c.says) || (c.says == "") != (got == "") {
			t.Errorf("%d letters of %d bytes: %q; want %q", c.letters, c.bytes, got, c.says)
		}
	}
}

// A reporter goes on while dead letters cannot be counted.
func TestDeadLettersThatCannotBeCountedHoldNothingUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	keys := stream.NewKeys("mythic:")
	r, err := NewReporter(w.store, ReporterOptions{Instance: "me", Keys: keys, Topics: []string{"things"}})
	if err != nil {
		t.Fatal(err)
	}
	client := w.redis.Client(t)
	client.XGroupCreateMkStream(t.Context(), keys.Topic("things"), "invalidate", "0")
	client.XAdd(t.Context(), &redis.XAddArgs{Stream: keys.Dead(), Values: []any{"dead.group", "invalidate", "dead.topic", "things"}})
	dead := func() int64 {
		t.Helper()
		if err := r.report(t.Context()); err != nil {
			t.Fatal(err)
		}
		reports, err := w.store.Reports(t.Context())
		if err != nil || len(reports) != 1 {
			t.Fatalf("%v, %v", reports, err)
		}
		return reports[0].Groups["invalidate"].Dead
	}
	if n := dead(); n != 1 {
		t.Errorf("%d dead letters are reported", n)
	}
	client.Set(t.Context(), keys.Dead(), "no stream", 0)
	if n := dead(); n != 1 {
		t.Errorf("%d dead letters are reported; want as many as there were", n)
	}
}
