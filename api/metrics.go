package api

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what was answered. Their labels are routes and classes of status
// codes, so that no request can make new ones.
type metrics struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	auth     *authMetrics
}

// routeMetrics are the series of one route, looked up once.
type routeMetrics struct {
	classes [6]prometheus.Counter // by hundreds of the status code
	took    prometheus.Observer
}

func newMetrics(registry prometheus.Registerer, m *misses) (*metrics, error) {
	all := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_http_requests_total", Help: "Requests answered, by route and class of status code.",
		}, []string{"route", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mythic_cache_http_request_seconds", Help: "Time from request to answer.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}, []string{"route"}),
	}
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mythic_cache_http_waiting", Help: "Requests that wait for an entry to be filled.",
	}, func() float64 { return float64(m.count()) })
	for _, c := range []prometheus.Collector{all.requests, all.took, waiting} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return all, nil
}

func (m *metrics) of(route string) routeMetrics {
	r := routeMetrics{took: m.took.WithLabelValues(route)}
	for i := range r.classes {
		class := strconv.Itoa(i) + "xx"
		if i == 0 {
			class = "none"
		}
		r.classes[i] = m.requests.WithLabelValues(route, class)
	}
	return r
}

func (r *routeMetrics) observe(status int, took time.Duration) {
	class := status / 100
	if class < 0 || class >= len(r.classes) {
		class = 0
	}
	r.classes[class].Inc()
	r.took.Observe(took.Seconds())
}
