package consumers

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/cache"
)

// Account counts, for one process, what answers cost and what they spared. It is
// safe for concurrent use.
type Account struct {
	calls, hits, failures, spent, saved atomic.Uint64

	outcomes *prometheus.CounterVec
	tokens   *prometheus.CounterVec
	hitsSeen prometheus.Counter
	took     prometheus.Histogram
}

// NewAccount opens an account; its metrics go to the registerer, where there is one.
func NewAccount(registerer prometheus.Registerer) (*Account, error) {
	a := &Account{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_ai_calls_total", Help: "Calls of the model, by outcome.",
		}, []string{"outcome"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_ai_tokens_total", Help: "Tokens spent on calls and saved by answers that were there, as the provider counts them.",
		}, []string{"kind"}),
		hitsSeen: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mythic_cache_ai_hits_total", Help: "Questions whose answer was there, so that the model was not asked.",
		}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mythic_cache_ai_call_seconds", Help: "Time that calls of the model took.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40, 80},
		}),
	}
	if registerer == nil {
		return a, nil
	}
	for _, c := range []prometheus.Collector{a.outcomes, a.tokens, a.hitsSeen, a.took} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the model: %w", err)
		}
	}
	return a, nil
}

// called counts a call.
func (a *Account) called(usage cache.Usage, took time.Duration, err error) {
	a.calls.Add(1)
	a.took.Observe(took.Seconds())
	outcome := "answered"
	var refusal *ModelError
	switch {
	case err == nil:
	case errors.As(err, &refusal) && refusal.Busy():
		outcome = "busy"
	case errors.As(err, &refusal) && refusal.Permanent():
		outcome = "refused"
	case errors.Is(err, errLeaseLost):
		outcome = "overtaken"
	default:
		outcome = "failed"
	}
	if err != nil {
		a.failures.Add(1)
	}
	a.outcomes.WithLabelValues(outcome).Inc()
	if spent := max(usage.TotalTokens, 0); spent > 0 {
		a.spent.Add(uint64(spent))
		a.tokens.WithLabelValues("spent").Add(float64(spent))
	}
}

// Hit counts a question whose answer was there; body is the stored answer.
func (a *Account) Hit(body []byte) {
	a.hits.Add(1)
	a.hitsSeen.Inc()
	var answer cache.Answer
	if err := json.Unmarshal(body, &answer); err != nil {
		return // stored by another release: its tokens are not known
	}
	if saved := max(answer.Usage.TotalTokens, 0); saved > 0 {
		a.saved.Add(uint64(saved))
		a.tokens.WithLabelValues("saved").Add(float64(saved))
	}
}

// Report returns what has been counted since the account was opened.
func (a *Account) Report() cache.AIReport {
	return cache.AIReport{Calls: a.calls.Load(), Hits: a.hits.Load(), Failures: a.failures.Load(), TokensSpent: a.spent.Load(), TokensSaved: a.saved.Load()}
}
