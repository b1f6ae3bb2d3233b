package cache

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// ViewCounts says what one process did with the entries of one view.
type ViewCounts struct {
	Hits          uint64 `json:"hits"`
	Misses        uint64 `json:"misses"`
	Stale         uint64 `json:"stale"`
	Saves         uint64 `json:"saves"`
	Refused       uint64 `json:"refused"`
	Invalidations uint64 `json:"invalidations"`
}

// Add returns the sum of both.
func (c ViewCounts) Add(o ViewCounts) ViewCounts {
	return ViewCounts{
		Hits: c.Hits + o.Hits, Misses: c.Misses + o.Misses, Stale: c.Stale + o.Stale,
		Saves: c.Saves + o.Saves, Refused: c.Refused + o.Refused, Invalidations: c.Invalidations + o.Invalidations,
	}
}

// tally counts for one view.
type tally struct {
	hits, misses, stale, saves, refused, invalidations atomic.Uint64
}

func (t *tally) counts() ViewCounts {
	return ViewCounts{
		Hits: t.hits.Load(), Misses: t.misses.Load(), Stale: t.stale.Load(),
		Saves: t.saves.Load(), Refused: t.refused.Load(), Invalidations: t.invalidations.Load(),
	}
}

// counts counts by view. Views are few and known, since they are configured.
type counts struct {
	mu    sync.RWMutex
	views map[string]*tally
}

func (c *counts) of(view string) *tally {
	c.mu.RLock()
	t := c.views[view]
	c.mu.RUnlock()
	if t != nil {
		return t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.views == nil {
		c.views = map[string]*tally{}
	}
	if c.views[view] == nil {
		c.views[view] = &tally{}
	}
	return c.views[view]
}

// Counts returns what this process has counted since it began, by view.
func (s *Store) Counts() map[string]ViewCounts {
	s.counts.mu.RLock()
	defer s.counts.mu.RUnlock()
	all := make(map[string]ViewCounts, len(s.counts.views))
	for name, t := range s.counts.views {
		all[name] = t.counts()
	}
	return all
}

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

// note measures an operation and begins its debug line.
func (s *Store) note(operation, view, key string, took time.Duration) *zerolog.Event {
	s.took.WithLabelValues(operation).Observe(took.Seconds())
	return s.log.Debug().Str("view", view).Str("key", key).Dur("took", took)
}

// noteRead counts a read that was looked at.
func (s *Store) noteRead(r *Result, took time.Duration) {
	line := s.note("read", r.Entry.View, r.Entry.Key, took)
	if r.Why == WhyLimited {
		line.Msg("cache read not admitted")
		return
	}
	t := s.counts.of(r.Entry.View)
	switch r.Status {
	case Hit:
		t.hits.Add(1)
		line.Stringer("version", r.Entry.Version).Msg("cache hit")
	case Stale:
		t.stale.Add(1)
		line.Str("why", r.Why).Stringer("version", r.Entry.Version).Msg("cache stale")
	default:
		t.misses.Add(1)
		line.Str("why", r.Why).Msg("cache miss")
	}
}

// notePut counts a put.
func (s *Store) notePut(f Filled, size int, took time.Duration) {
	line := s.note("put", f.Entry.View, f.Entry.Key, took).Int("bytes", size).Stringer("version", f.Entry.Version)
	t := s.counts.of(f.Entry.View)
	if f.Outcome == Refused {
		t.refused.Add(1)
		line.Str("why", f.Reason).Msg("cache save refused")
		return
	}
	t.saves.Add(1)
	line.Dur("ttl", f.Entry.FreshUntil.Sub(f.Entry.Saved)).Dur("load", f.Entry.LoadTook).Msg("cache save")
}
