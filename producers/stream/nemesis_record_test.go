package stream_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// record is what a nemesis met and measured. Each thing is of the fault that was the
// last before it.
type record struct {
	events, handled int
	faults          map[string]int
	repeats         map[string]int
	recovered       map[string][]time.Duration // until every group handled what was published after the fault
	longest         silence
}

// silence is a time in which a group handled nothing.
type silence struct {
	group, during string
	lasted        time.Duration
}

func newRecord() *record {
	return &record{faults: map[string]int{}, repeats: map[string]int{}, recovered: map[string][]time.Duration{}}
}

// add takes up another record.
func (r *record) add(other *record) {
	r.events += other.events
	r.handled += other.handled
	for name, times := range other.faults {
		r.faults[name] += times
	}
	for name, times := range other.repeats {
		r.repeats[name] += times
	}
	for name, took := range other.recovered {
		r.recovered[name] = append(r.recovered[name], took...)
	}
	if other.longest.lasted > r.longest.lasted {
		r.longest = other.longest
	}
}

func (r *record) log(t testing.TB) {
	t.Helper()
	repeats := 0
	for _, times := range r.repeats {
		repeats += times
	}
	t.Logf("%d events, handled %d times, of them %d repeats; the longest that a group handled nothing: %s (%s, %s)",
		r.events, r.handled, repeats, r.longest.lasted.Round(time.Millisecond), r.longest.group, r.longest.during)
	for _, name := range slices.Sorted(maps.Keys(r.faults)) {
		again := "not waited for"
		if took := slices.Sorted(slices.Values(r.recovered[name])); len(took) > 0 {
			again = fmt.Sprintf("handling again after %s, at most %s", took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
		}
		t.Logf("%-45s %3d times, %6d repeats; %s", name, r.faults[name], r.repeats[name], again)
	}
}
