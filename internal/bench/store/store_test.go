package store

import (
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mythiccache/internal/bench/gauge"
)

// Each figure can be measured, over a hundredth of its keys: what they are is not
// for a test to say. Latency needs the program, and is left out.
func TestFiguresCanBeMeasured(t *testing.T) {
	for _, f := range figures() {
		if f.Name == "latency" {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			var out, log strings.Builder
			if err := Run(t.Context(), gauge.Options{Dir: t.TempDir(), Names: []string{f.Name}, Once: true, Out: &out, Log: &log}); err != nil {
				t.Fatal(err)
			}
			if table := out.String(); strings.Count(table, "\n") < 2 || strings.Contains(table, "NaN") {
				t.Errorf("the table is\n%s", table)
			}
		})
	}
}

// A round is over when entry and fence of each write have come; only the first of
// each counts, and nothing that others wrote.
func TestARoundEndsWithItsLastFence(t *testing.T) {
	f := &follower{writes: make([]write, 2), all: make(chan struct{})}
	f.left.Store(4)
	entry := func(w *write) *atomic.Int64 { return &w.entry }
	fence := func(w *write) *atomic.Int64 { return &w.fence }
	at := func(since time.Duration, user string, what func(*write) *atomic.Int64) {
		f.begun = time.Now().Add(-since)
		f.note(user, what)
	}
	for n, committed := range []time.Duration{10 * time.Minute, 20 * time.Minute} {
		f.writes[n].committed.Store(int64(committed))
	}
	at(12*time.Minute, "bench_0", entry)
	for _, other := range []string{"", "bench_", "bench_2", "bench_-1", "user_1", "RUN1"} {
		at(time.Hour, other, entry)
	}
	at(14*time.Minute, "bench_0", fence)
	at(time.Hour, "bench_0", fence)
	at(17*time.Minute, "bench_1", entry) // before its writer hears of the commit
	select {
	case <-f.all:
		t.Fatal("the round was over before the last fence came")
	default:
	}
	at(21*time.Minute, "bench_1", fence)
	select {
	case <-f.all:
	default:
		t.Fatal("the round is not over")
	}
	minutes := func(all []float64) (whole []int) {
		for _, ms := range all {
			whole = append(whole, int(ms/60_000+.5))
		}
		return whole
	}
	c := f.came()
	for what, pair := range map[string][2][]int{
		"entry": {minutes(c.entry), {2, 0}}, "fence": {minutes(c.fence), {4, 1}}, "between": {minutes(c.between), {2, 4}},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: after %v minutes; want %v", what, pair[0], pair[1])
		}
	}
}
