package cache

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gone is an entry that was dropped since its key was written.
type gone struct {
	at    time.Time // by the clock of Redis
	saved time.Time // when the entry had been
}

// goneKept bounds how many of a shard wait to be measured.
const goneKept = 128

// note keeps what is gone, with the lock held. When there is too much of it, what nobody
// has asked for again is forgotten.
func (s *nearShard) note(k waitKey, g gone) {
	if len(s.gone) >= goneKept {
		clear(s.gone)
	}
	s.gone[k] = g
}

// last returns what was dropped of a key since it was read, or, where an entry of the
// same era is there, what becomes of it now that a reader brings another.
func (s *nearShard) last(k waitKey, now func() time.Time, in *era) (gone, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[k]; old != nil && old.in == in {
		delete(s.gone, k)
		return gone{at: now(), saved: old.entry.Saved}, true
	}
	g, known := s.gone[k]
	delete(s.gone, k)
	return g, known
}

// measure notes for how long an entry was served that Redis had no more. Redis does not
// say when a key was written; but what is read from it next does: a value when it was
// put, a fence when the change came. Had the key been written once more since the entry
// was dropped, it would be unknown when it was written first, and nothing is noted; nor
// is it where the entry is the same, since its lease alone was written.
func (n *near) measure(k waitKey, l *look, in *era) {
	g, known := n.shard(k).last(k, n.clock, in)
	written := l.header.saved
	if !known || l.err != nil || !written.After(g.saved) {
		return
	}
	// Redis's clock is known to within a round trip, and what is written has milliseconds.
	if late := g.at.Sub(written); late > -time.Millisecond {
		n.staleness.Observe(max(late, 0).Seconds())
	}
}

// newNearStaleness makes the histogram of what memory adds to the age of an answer.
func newNearStaleness() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "mythic_cache_near_staleness_seconds",
		Help: "From a key's being written in Redis until this process no longer gave the entry that it had of it in memory; " +
			"of keys that were read again, and to the millisecond.",
		Buckets: []float64{0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5},
	})
}
