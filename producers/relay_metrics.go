package producers

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// relayMetrics are there also where nobody collects them.
type relayMetrics struct {
	leader, backlog, lastDrain, outboxBytes prometheus.Gauge
	events, scripts, truncations            prometheus.Counter
	drain                                   prometheus.Histogram
	fenced, broken, stalled, viewFences     *prometheus.CounterVec
	drifted, waits                          *prometheus.GaugeVec
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
		outboxBytes: gauge("outbox_bytes", "Bytes on disk of the outbox, with what was sent and is kept for its retention."),
		events:      prometheus.NewCounter(counter("events_total", "Events appended to streams.")),
		scripts:     prometheus.NewCounter(counter("appends_total", "Scripts that appended events and moved the position.")),
		truncations: prometheus.NewCounter(counter("truncated_partitions_total", "Outbox partitions truncated after their retention.")),
		drain: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "mythic_cache", Subsystem: "relay", Name: "drain_seconds",
			Help: "Time to read a batch that was not empty and append it.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		fenced:     prometheus.NewCounterVec(counter("fenced_total", "Times that every view was fenced and the retained outbox sent again."), []string{"why"}),
		broken:     prometheus.NewCounterVec(counter("broken_mappings_total", "Statements whose keys could not be told, so that a view was fenced."), []string{"view"}),
		stalled:    prometheus.NewCounterVec(counter("stalls_total", "Attempts to send that failed."), []string{"server"}),
		viewFences: prometheus.NewCounterVec(counter("view_fences_total", "Times that a view was fenced as a whole because its tables became others, or its changes may go unnoticed."), []string{"view"}),
		drifted: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "mythic_cache", Subsystem: "relay", Name: "drifted_views",
			Help: "1 while a view's changes may go unnoticed, so that it is fenced each second."}, []string{"view"}),
		waits: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "mythic_cache", Subsystem: "relay", Name: "stalled",
			Help: "1 while nothing is sent, by what it waits for."}, []string{"why"}),
	}
	if to == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.leader, m.backlog, m.lastDrain, m.events, m.scripts, m.truncations, m.drain, m.fenced, m.broken, m.stalled, m.outboxBytes, m.viewFences, m.drifted, m.waits} {
		errs = append(errs, to.Register(c))
	}
	return m, errors.Join(errs...)
}

// follow forgets what only a leader knows.
func (m *relayMetrics) follow() {
	m.leader.Set(0)
	m.outboxBytes.Set(0)
	m.drifted.Reset()
}

// stall notes what is waited for: nothing, where it is empty.
func (m *relayMetrics) stall(why string) {
	m.waits.Reset()
	if why != "" {
		m.waits.WithLabelValues(why).Set(1)
	}
}
