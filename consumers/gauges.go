package consumers

import (
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/producers/stream"
)

// census is one reading of the groups and the dead letters.
type census struct {
	at     time.Time
	groups []stream.GroupState
	dead   map[stream.GroupTopic]int64
	bytes  int64 // of all dead letters; below 0: not known
}

// gauges show the last census to Prometheus, so that a scrape costs no round trip
// and what is gone is no longer shown. One that is too old is not shown at all.
type gauges struct {
	lag, pending, oldest, parked, dead, bytes *prometheus.Desc

	mu   sync.Mutex
	last census
}

// censusAge is how long a census is shown.
const censusAge = 30 * time.Second

func newGauges() *gauges {
	of := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("mythic_cache_stream_"+name, help, labels, nil)
	}
	return &gauges{
		lag:     of("lag", "Entries of a topic that a group has not read.", "group", "topic"),
		pending: of("pending", "Entries that a group has read and not acknowledged.", "group", "topic"),
		oldest:  of("oldest_pending_seconds", "Age of the oldest entry that a group has not acknowledged, read or not; 0 for none.", "group", "topic"),
		parked:  of("parked", "Events that failed and wait to be tried again.", "group", "topic"),
		dead:    of("dead_letters", "Dead letters, by the group and topic that they come from.", "group", "topic"),
		bytes:   of("dead_letters_bytes", "About how much memory of Redis the dead letters take."),
	}
}

func (g *gauges) show(c census) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = c
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.lag, g.pending, g.oldest, g.parked, g.dead, g.bytes} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	g.mu.Lock()
	last := g.last
	g.mu.Unlock()
	if time.Since(last.at) > censusAge {
		return
	}
	send := func(d *prometheus.Desc, value float64, names ...string) {
		labels := make([]string, len(names))
		for i, name := range names {
			labels[i] = label(name)
		}
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	shown := map[stream.GroupTopic]bool{}
	for _, s := range last.groups {
		of := stream.GroupTopic{Group: s.Group, Topic: s.Topic}
		shown[of] = true
		send(g.lag, float64(s.Lag), s.Group, s.Topic)
		send(g.pending, float64(s.Pending), s.Group, s.Topic)
		send(g.oldest, s.OldestPending.Seconds(), s.Group, s.Topic)
		send(g.parked, float64(s.Parked), s.Group, s.Topic)
		send(g.dead, float64(last.dead[of]), s.Group, s.Topic)
	}
	for of, n := range last.dead {
		if !shown[of] {
			send(g.dead, float64(n), of.Group, of.Topic)
		}
	}
	if last.bytes >= 0 {
		send(g.bytes, float64(last.bytes))
	}
}

// label spells a name that may be no text: anybody may call a group or topic what they
// like, and one label that is none would end the scrape. Two names that differ have
// labels that differ, which a scrape demands as well.
func label(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	return strconv.Quote(name)
}
