package main

import (
	"testing"
	"time"

	"mythiccache/cache"
)

// A relay was at work after a look when its process, which had said before that it leads,
// has said so again since. Reports outlive whoever made them, and clocks differ.
func TestPulseIsOfRelaysThatLive(t *testing.T) {
	t.Parallel()
	start := time.Now()
	look := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
	says := func(instance string, hour int, relay *cache.RelayReport) cache.Report {
		return cache.Report{Instance: instance, At: start.Add(time.Duration(hour) * time.Hour), Relay: relay}
	}
	leads, standsBy := &cache.RelayReport{Leader: true}, &cache.RelayReport{}
	p := &pulse{}
	for n, c := range []struct {
		when    string
		reports []cache.Report
		beat    int // the look after which a relay was at work; 0: none is known to have been
	}{
		{"before anybody reports", nil, 0},
		{"what was said before the first look", []cache.Report{says("one", 9, leads), says("two", 1, standsBy)}, 0},
		{"the same again", []cache.Report{says("one", 9, leads), says("two", 1, standsBy)}, 0},
		{"the next report", []cache.Report{says("one", 10, leads), says("two", 2, standsBy)}, 2},
		{"it has died, and its report stays", []cache.Report{says("one", 10, leads), says("two", 3, standsBy)}, 2},
		{"the next one takes over", []cache.Report{says("one", 10, leads), says("two", 4, leads)}, 2},
		{"says so again, by a clock that is behind", []cache.Report{says("one", 10, leads), says("two", 5, leads)}, 5},
		{"stands by", []cache.Report{says("two", 6, standsBy)}, 5},
		{"leads again", []cache.Report{says("two", 7, leads), says("three", 7, nil)}, 5},
		{"after all reports were lost", nil, 5},
		{"when they come back", []cache.Report{says("two", 8, leads), says("three", 8, nil)}, 5},
		{"and again", []cache.Report{says("two", 9, leads), says("three", 9, nil)}, 10},
	} {
		p.hear(look(n), c.reports)
		want := time.Time{}
		if c.beat > 0 {
			want = look(c.beat)
		}
		if !p.beat.Equal(want) {
			t.Errorf("%s: a relay was at work after %s", c.when, p.beat.Sub(start))
		}
	}
}
