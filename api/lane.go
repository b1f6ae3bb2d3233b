package api

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/api/lane"
)

// errNotAtOnce says that a request in the lane would have to wait, or that its route
// has no business there. Nothing is sent then, and net/http brings the request again.
var errNotAtOnce = errors.New("not to be answered at once")

// newLane makes the lane in which hits are answered: what is in memory, and what Redis
// has and brings within a moment.
func (s *Server) newLane() error {
	if s.tls != nil {
		return nil
	}
	s.lane = lane.New(s.handler)
	answered := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "mythic_cache_api_lane_total", Help: "Requests that were answered before net/http read them.",
	}, func() float64 { return float64(s.lane.Answered()) })
	if err := s.o.Registry.Register(answered); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}
