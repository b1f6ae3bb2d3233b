package stream

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are shared by all consumers on one registerer. A nil one measures
// nothing.
type metrics struct {
	outcomes *prometheus.CounterVec
	claims   *prometheus.CounterVec
	handling *prometheus.HistogramVec
	batches  *prometheus.HistogramVec
	hanging  *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	if r == nil {
		return nil, nil
	}
	m := &metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_stream_deliveries_total",
			Help: "Deliveries that were settled, by outcome: done, retried, paused or dead.",
		}, []string{"group", "topic", "outcome"}),
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_stream_claimed_total",
			Help: "Pending entries taken over from consumers that were gone.",
		}, []string{"group", "topic"}),
		handling: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "mythic_cache_stream_handle_seconds",
			Help:    "Time that a handler took for one batch.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
		}, []string{"group"}),
		batches: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "mythic_cache_stream_batch_size",
			Help:    "Messages in one batch.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 6),
		}, []string{"group"}),
		hanging: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mythic_cache_stream_hanging_handlers",
			Help: "Calls of a handler that were given up, since they do not return, and still hold their place.",
		}, []string{"group"}),
	}
	err := errors.Join(register(r, &m.outcomes), register(r, &m.claims), register(r, &m.handling), register(r, &m.batches), register(r, &m.hanging))
	return m, err
}

// register registers a collector, or takes the one that another consumer has
// registered before.
func register[C prometheus.Collector](r prometheus.Registerer, c *C) error {
	err := r.Register(*c)
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if known, ok := there.ExistingCollector.(C); ok {
			*c = known
			return nil
		}
	}
	return err
}

func (m *metrics) settled(group, topic, outcome string, n int) {
	if m != nil {
		m.outcomes.WithLabelValues(group, topic, outcome).Add(float64(n))
	}
}

func (m *metrics) claimed(group, topic string, n int) {
	if m != nil {
		m.claims.WithLabelValues(group, topic).Add(float64(n))
	}
}

func (m *metrics) handled(group string, messages int, took time.Duration) {
	if m != nil {
		m.handling.WithLabelValues(group).Observe(took.Seconds())
		m.batches.WithLabelValues(group).Observe(float64(messages))
	}
}

func (m *metrics) hangs(group string, change float64) {
	if m != nil {
		m.hanging.WithLabelValues(group).Add(change)
	}
}
