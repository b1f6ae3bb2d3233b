package consumers

import (
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/cache"
)

// staleness measures how long entries outlived what they showed: from the writing of a
// row, by PostgreSQL's clock, to the end of the entry that had been stored before, by
// ours. The time until the writer's transaction committed is in it, though the entry
// was true until then. An entry that changed several times is measured once, from the
// first of the changes. What ended nothing is not in it, nor what ended an entry that
// is younger than the row: a late or repeated event, of a row that the entry has seen.
// A fence of a whole view is measured where it rose. It keeps the last one to two
// minutes in buckets that are 5 % wide.
type staleness struct {
	applied *prometheus.HistogramVec

	mu          sync.Mutex
	since       time.Time // when now was begun
	before, now [buckets]uint64
	totals      [2]uint64 // of before and now
}

const (
	buckets     = 400
	bucketFloor = 50e-6 // seconds; what is below counts as this
	bucketWidth = 1.05
	windowSpan  = time.Minute
)

func newStaleness(metrics prometheus.Registerer) (*staleness, error) {
	s := &staleness{applied: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "mythic_cache_write_to_invalidated_seconds",
		Help:    "Time from the writing of a row (its transaction commits later) to the end of the entry, or view, that showed it as it had been.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
	}, []string{"view"})}
	if err := register(metrics, s.applied); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *staleness) observe(view string, now, written time.Time) {
	if written.IsZero() {
		return
	}
	took := max(now.Sub(written), 0).Seconds() // the clocks of two machines
	s.applied.WithLabelValues(view).Observe(took)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
	s.now[bucketOf(took)]++
	s.totals[1]++
}

// turn begins a new minute when the present one is over.
func (s *staleness) turn(now time.Time) {
	age := now.Sub(s.since)
	if age < windowSpan {
		return
	}
	s.before, s.totals[0] = s.now, s.totals[1]
	if age >= 2*windowSpan {
		s.before, s.totals[0] = [buckets]uint64{}, 0
	}
	s.now, s.totals[1] = [buckets]uint64{}, 0
	s.since = now
}

func (s *staleness) quantiles(now time.Time) *cache.Quantiles {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
	return &cache.Quantiles{
		Count: s.totals[0] + s.totals[1],
		P50:   s.quantile(0.5), P99: s.quantile(0.99), P999: s.quantile(0.999),
	}
}

// quantile returns the upper end of the bucket that the q-th observation is in.
func (s *staleness) quantile(q float64) float64 {
	total := s.totals[0] + s.totals[1]
	if total == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(total)))
	var seen uint64
	for i := range buckets {
		if seen += s.before[i] + s.now[i]; seen >= rank {
			return bucketFloor * math.Pow(bucketWidth, float64(i))
		}
	}
	return bucketFloor * math.Pow(bucketWidth, buckets-1)
}

func bucketOf(seconds float64) int {
	if seconds <= bucketFloor {
		return 0
	}
	return min(int(math.Ceil(math.Log(seconds/bucketFloor)/math.Log(bucketWidth))), buckets-1)
}
