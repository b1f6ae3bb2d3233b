package cache

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// newTook makes the histogram of how long operations take.
func newTook() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "mythic_cache_operation_seconds",
		Help:    "How long operations on the cache took, round trip included.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 11),
	}, []string{"operation"})
}

// register makes the store's metrics known.
func (s *Store) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	if err := r.Register(s.took); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	if err := r.Register(s.seals.unreadable); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	if err := r.Register(&collector{store: s, desc: prometheus.NewDesc(
		"mythic_cache_operations_total", "Operations on the cache by view and result.", []string{"view", "result"}, nil,
	)}); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}

// collector turns the counts into metrics when it is asked for them.
type collector struct {
	store *Store
	desc  *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	all := c.store.Counts()
	for _, view := range slices.Sorted(maps.Keys(all)) {
		n := all[view]
		for _, one := range []struct {
			result string
			count  uint64
		}{
			{"hit", n.Hits}, {"miss", n.Misses}, {"stale", n.Stale},
			{"save", n.Saves}, {"refused", n.Refused}, {"invalidation", n.Invalidations},
		} {
			to <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(one.count), view, one.result)
		}
	}
}

// observe measures an operation that began at that moment, and returns how long
// it took.
func (s *Store) observe(operation string, started time.Time) time.Duration {
	took := time.Since(started)
	s.took.WithLabelValues(operation).Observe(took.Seconds())
	return took
}

// noteRead counts a read that was looked at.
func (s *Store) noteRead(r *Result, took time.Duration) {
	e := &r.Entry
	if r.Why == WhyLimited {
		s.log.Debug().Str("view", e.View).Str("key", e.Key).Dur("took", took).Msg("cache read not admitted")
		return
	}
	t := s.counts.of(e.View)
	switch r.Status {
	case Hit:
		t.hits.Add(1)
		s.log.Debug().Str("view", e.View).Str("key", e.Key).Dur("took", took).Msg("cache hit")
	case Stale:
		t.stale.Add(1)
		s.log.Debug().Str("view", e.View).Str("key", e.Key).Dur("took", took).Str("why", r.Why).Msg("cache stale")
	default:
		t.misses.Add(1)
		s.log.Debug().Str("view", e.View).Str("key", e.Key).Dur("took", took).Str("why", r.Why).Msg("cache miss")
	}
}

// notePut counts a put.
func (s *Store) notePut(f Filled, size int, took time.Duration) {
	e := &f.Entry
	t := s.counts.of(e.View)
	if f.Outcome == Refused {
		t.refused.Add(1)
		s.log.Debug().Str("view", e.View).Str("key", e.Key).Dur("took", took).
			Stringer("version", e.Version).Str("why", f.Reason).Msg("cache save refused")
		return
	}
	t.saves.Add(1)
	s.log.Debug().Str("view", e.View).Str("key", e.Key).Dur("took", took).
		Stringer("version", e.Version).Int("bytes", size).
		Dur("ttl", e.FreshUntil.Sub(e.Saved)).Dur("load", e.LoadTook).Msg("cache save")
}
