package cache

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// register makes the reader's metrics known.
func (r *Reader) register(to prometheus.Registerer) error {
	if to == nil {
		return nil
	}
	counter := func(name, help string, of func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(of()) })
	}
	all := []prometheus.Collector{
		counter("mythic_cache_limiter_local_total", "Admissions by this process's own count, while Redis was away or did not let the limiter write.", r.allowances.withoutRedis.Load),
		counter("mythic_cache_read_batches_total", "Batches of reads that were sent to Redis.", r.pipeline.batches.Load),
		counter("mythic_cache_read_batched_total", "Reads that were sent to Redis in batches.", r.pipeline.batched.Load),
	}
	if n := r.near; n != nil {
		gauge := func(name, help string, of func() float64) prometheus.Collector {
			return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, of)
		}
		all = append(
			all,
			counter("mythic_cache_near_hits_total", "Reads that were answered from memory.", n.hits.Load),
			counter("mythic_cache_near_passed_total", "Reads that were not, and went to Redis.", n.passed.Load),
			counter("mythic_cache_near_written_total", "Keys that Redis said were written.", n.struck.Load),
			gauge("mythic_cache_near_entries", "Entries in memory.", func() float64 { entries, _ := n.held(); return float64(entries) }),
			gauge("mythic_cache_near_bytes", "What they take.", func() float64 { _, bytes := n.held(); return float64(bytes) }),
			gauge("mythic_cache_near_linked", "Whether Redis tells this process of written keys.", func() float64 {
				if n.era.Load() == nil {
					return 0
				}
				return 1
			}),
			n.lag,
			n.staleness,
		)
	}
	for _, c := range all {
		if err := to.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// newLag makes the histogram of how far behind Redis what is near may be.
func newLag() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "mythic_cache_near_lag_seconds",
		Help:    "From asking for a sign of life until it was heard: what was written before it was asked for has been heard of by then.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 10),
	})
}
