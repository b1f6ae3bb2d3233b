package producers

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// relayMetrics are there also where nobody collects them.
type relayMetrics struct {
	leader, backlog, lastDrain   prometheus.Gauge
	events, scripts, truncations prometheus.Counter
	drain                        prometheus.Histogram
	fenced, broken, stalled      *prometheus.CounterVec
}

func newRelayMetrics(to prometheus.Registerer) (*relayMetrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "mythic_cache", Subsystem: "relay", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "mythic_cache", Subsystem: "relay", Name: name, Help: help}
	}
	m := &relayMetrics{
		leader:      gauge("leader", "1 where this process leads."),
		backlog:     gauge("backlog_rows", "Outbox rows known to wait, counted up to 100,000."),
		lastDrain:   gauge("last_drain_timestamp_seconds", "When the outbox was last read to its end."),
		events:      prometheus.NewCounter(counter("events_total", "Events appended to streams.")),
		scripts:     prometheus.NewCounter(counter("appends_total", "Scripts that appended events and moved the position.")),
		truncations: prometheus.NewCounter(counter("truncated_partitions_total", "Outbox partitions truncated after their retention.")),
		drain: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "mythic_cache", Subsystem: "relay", Name: "drain_seconds",
			Help: "Time to read a batch that was not empty and append it.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		fenced:  prometheus.NewCounterVec(counter("fenced_total", "Times that every view was fenced and the retained outbox sent again."), []string{"why"}),
		broken:  prometheus.NewCounterVec(counter("broken_mappings_total", "Statements whose keys could not be told, so that a view was fenced."), []string{"view"}),
		stalled: prometheus.NewCounterVec(counter("stalls_total", "Attempts to send that failed."), []string{"server"}),
	}
	if to == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.leader, m.backlog, m.lastDrain, m.events, m.scripts, m.truncations, m.drain, m.fenced, m.broken, m.stalled} {
		errs = append(errs, to.Register(c))
	}
	return m, errors.Join(errs...)
}
