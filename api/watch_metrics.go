package api

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// watchMetrics count those who watch entries.
type watchMetrics struct {
	watchers *prometheus.GaugeVec
	events   prometheus.Counter
	ended    *prometheus.CounterVec
}

func newWatchMetrics(registry prometheus.Registerer) (*watchMetrics, error) {
	m := &watchMetrics{
		watchers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mythic_cache_http_watchers", Help: "Requests that watch an entry, by stream or by poll.",
		}, []string{"way"}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mythic_cache_http_watch_events_total", Help: "Events sent to those who watch by stream.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_http_watch_ended_total", Help: "Streams that have ended, by why.",
		}, []string{"why"}),
	}
	for _, c := range []prometheus.Collector{m.watchers, m.events, m.ended} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *watchMetrics) joined(one watcher) { m.watchers.WithLabelValues(wayOf(one)).Inc() }
func (m *watchMetrics) left(one watcher)   { m.watchers.WithLabelValues(wayOf(one)).Dec() }

func wayOf(one watcher) string {
	if _, ok := one.(*feed); ok {
		return "stream"
	}
	return "poll"
}
