package consumers

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/cache"
)

// otherModel is the label of models that nobody has configured: what callers write is
// no bound on how many labels there are.
const otherModel = "other"

// AccountOptions says what an account knows of models.
type AccountOptions struct {
	Prices  Prices                //
	Models  []string              // that have a label of their own, besides those with a price
	Metrics prometheus.Registerer // nil: none
}

// Account counts, for one process, what answers cost and what they spared. It is
// safe for concurrent use.
type Account struct {
	calls, hits, failures, spent, saved atomic.Uint64

	prices Prices
	labels []string

	mu                    sync.Mutex
	moneySpent, moneySave float64
	scopes                map[string]*cache.ScopeCost // since they were last written

	outcomes *prometheus.CounterVec
	tokens   *prometheus.CounterVec
	money    *prometheus.CounterVec
	hitsSeen prometheus.Counter
	took     prometheus.Histogram
}

// NewAccount opens an account.
func NewAccount(o AccountOptions) (*Account, error) {
	a := &Account{
		scopes: map[string]*cache.ScopeCost{}, prices: o.Prices, labels: slices.Concat(o.Models, o.Prices.names()),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_ai_calls_total", Help: "Calls of the model, by model and outcome.",
		}, []string{"model", "outcome"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_ai_tokens_total", Help: "Tokens spent on calls and saved by answers that were there, as the provider counts them.",
		}, []string{"model", "kind"}),
		money: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_ai_money_total", Help: "Money spent on calls and saved by answers that were there, by AI_PRICES and in their currency.",
		}, []string{"model", "kind"}),
		hitsSeen: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mythic_cache_ai_hits_total", Help: "Questions whose answer was there, so that the model was not asked.",
		}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mythic_cache_ai_call_seconds", Help: "Time that calls of the model took.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40, 80},
		}),
	}
	if o.Metrics == nil {
		return a, nil
	}
	for _, c := range []prometheus.Collector{a.outcomes, a.tokens, a.money, a.hitsSeen, a.took} {
		if err := o.Metrics.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the model: %w", err)
		}
	}
	return a, nil
}

// label returns a model's name where somebody has configured it.
func (a *Account) label(model string) string {
	if slices.Contains(a.labels, model) {
		return model
	}
	if name, ok := a.prices.find(model); ok {
		return name
	}
	return otherModel
}

// called counts a call that was made for a scope.
func (a *Account) called(scope, model string, usage cache.Usage, took time.Duration, err error) {
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
	label := a.label(model)
	a.outcomes.WithLabelValues(label, outcome).Inc()
	cost := a.book(&a.spent, model, label, "spent", usage)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.moneySpent += cost
	a.charge(scope, func(c *cache.ScopeCost) {
		c.TokensSpent += max(usage.TotalTokens, 0)
		c.MoneySpent += cost
	})
}

// HitOf counts a question of a scope whose answer was there, by its model and what it
// had cost.
func (a *Account) HitOf(scope, model string, usage cache.Usage) {
	a.hits.Add(1)
	a.hitsSeen.Inc()
	cost := a.book(&a.saved, model, a.label(model), "saved", usage)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.moneySave += cost
	a.charge(scope, func(c *cache.ScopeCost) {
		c.TokensSaved += max(usage.TotalTokens, 0)
		c.MoneySaved += cost
	})
}

// book adds up tokens, and returns what they cost. Counters never fall: a provider that
// counts below zero is not believed.
func (a *Account) book(tokens *atomic.Uint64, model, label, kind string, usage cache.Usage) float64 {
	if usage.TotalTokens > 0 {
		tokens.Add(uint64(usage.TotalTokens))
		a.tokens.WithLabelValues(label, kind).Add(float64(usage.TotalTokens))
	}
	cost := a.prices.of(model, usage)
	a.money.WithLabelValues(label, kind).Add(cost)
	return cost
}

// Report returns what has been counted since the account was opened.
func (a *Account) Report() cache.AIReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	return cache.AIReport{
		Calls: a.calls.Load(), Hits: a.hits.Load(), Failures: a.failures.Load(), TokensSpent: a.spent.Load(), TokensSaved: a.saved.Load(),
		MoneySpent: a.moneySpent, MoneySaved: a.moneySave,
	}
}
