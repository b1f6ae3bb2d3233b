package consumers

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// auditMetrics are what the auditor of this process has found, while it had the turn.
type auditMetrics struct {
	checked    *prometheus.CounterVec
	violations *prometheus.CounterVec
	behind     *prometheus.HistogramVec
	passes     prometheus.Counter
	suspects   prometheus.Gauge
}

func newAuditMetrics(into prometheus.Registerer) (*auditMetrics, error) {
	m := &auditMetrics{
		checked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_audit_checked_total",
			Help: "Entries that were compared with PostgreSQL, by verdict: fresh, behind (a change was on its way), wrong, or unread (what SQL says could not be had).",
		}, []string{"view", "verdict"}),
		violations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_audit_violations_total",
			Help: "Entries that differed from PostgreSQL with nothing on its way to mend them. Each is a fault.",
		}, []string{"view"}),
		behind: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "mythic_cache_audit_behind_seconds",
			Help:    "Time for which an entry that was behind was seen to be so.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 17),
		}, []string{"view"}),
		passes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mythic_cache_audit_passes_total",
			Help: "Walks over all that is cached that have come to their end.",
		}),
		suspects: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mythic_cache_audit_suspects",
			Help: "Entries that differ and are looked at again.",
		}),
	}
	return m, register(into, m.checked, m.violations, m.behind, m.passes, m.suspects)
}

// note counts a final verdict.
func (m *auditMetrics) note(view string, verdict Verdict, since time.Time) {
	m.checked.WithLabelValues(view, string(verdict)).Inc()
	switch verdict {
	case Wrong:
		m.violations.WithLabelValues(view).Inc()
	case Behind:
		m.behind.WithLabelValues(view).Observe(time.Since(since).Seconds())
	case Fresh, Unread:
	}
}
