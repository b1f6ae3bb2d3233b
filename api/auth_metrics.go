package api

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// authMetrics count who was not let in, and how often Redis was asked about a token.
// Their labels are words of ours.
type authMetrics struct {
	refused *prometheus.CounterVec
	looks   *prometheus.CounterVec
}

func newAuthMetrics(registry prometheus.Registerer) (*authMetrics, error) {
	m := &authMetrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_http_unauthorized_total", Help: "Callers that were not let in, by why.",
		}, []string{"why"}),
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_http_token_looks_total", Help: "Tokens that were looked up in Redis, by what it said: good, bad, or nothing (failed).",
		}, []string{"result"}),
	}
	for _, c := range []prometheus.Collector{m.refused, m.looks} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// looked notes what a look into Redis gave.
func (m *authMetrics) looked(good bool, err error) {
	result := "bad"
	switch {
	case err != nil:
		result = "failed"
	case good:
		result = "good"
	}
	m.looks.WithLabelValues(result).Inc()
}

// notLetIn notes a refusal. Other errors are counted by their status.
func (m *authMetrics) notLetIn(err error) {
	if p, ok := errors.AsType[*Problem](err); ok && p.Status == http.StatusUnauthorized {
		m.refused.WithLabelValues(whyRefused(p.Detail)).Inc()
	}
}

// whyRefused shortens the sentence of a refusal to a word.
func whyRefused(detail string) string {
	switch detail {
	case "this is for users: show who you are", "this is for the app: show its token":
		return "nothing-shown"
	case "more than one Authorization header", "Authorization is not of the form Bearer <token>":
		return "header"
	case "the token has been revoked":
		return "revoked"
	case "the token is not known, or not any more":
		return "unknown"
	case "the token has expired":
		return "expired"
	case "the token's signature is not valid here":
		return "signature"
	case "this is for the app, and the token is not the app's":
		return "not-the-app"
	}
	return "invalid"
}
