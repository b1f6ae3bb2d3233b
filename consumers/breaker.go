package consumers

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A breaker opens after so many failures in a row, for breakFirst; each trial that
// fails doubles that up to breakMost.
const (
	breakAfter = 5
	breakFirst = 5 * time.Second
	breakMost  = time.Minute
)

// States of a breaker, as the metric has them.
const (
	breakerClosed   = 0
	breakerHalfOpen = 1 // one call finds out
	breakerOpen     = 2
)

// breaker keeps calls from a model that fails, for a while.
type breaker struct {
	failures int           // in a row
	until    time.Time     // it is open; zero: it is closed
	wait     time.Duration // how long it was opened for
	trial    time.Time     // when the one call began that is to find out; zero: there is none
}

// breakers are those of all models that this process has asked and that have failed.
// What a request brings upon itself is no failure, nor is being busy: the provider
// says then when to come back.
type breakers struct {
	label func(model string) string
	state *prometheus.GaugeVec

	mu sync.Mutex
	of map[string]*breaker
}

func newBreakers(label func(string) string) *breakers {
	return &breakers{
		label: label, of: map[string]*breaker{},
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mythic_cache_ai_breaker", Help: "Whether calls of a model go through: 0 they do, 1 one is to find out, 2 they do not.",
		}, []string{"model"}),
	}
}

// left returns how long a model is to be left alone. Where it says 0 a call may be
// made; of a breaker whose time is over only one, whose end done is told of.
func (b *breakers) left(model string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.of[model]
	switch {
	case one == nil || one.until.IsZero():
		return 0
	case one.until.After(now):
		return one.until.Sub(now)
	case !one.trial.IsZero() && now.Sub(one.trial) < breakMost:
		return time.Second
	default:
		return 0
	}
}

// begin is left for who is about to call, and takes the one place that there may be.
func (b *breakers) begin(model string, now time.Time) time.Duration {
	if left := b.left(model, now); left > 0 {
		return left
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.of[model]
	if one == nil || one.until.IsZero() {
		return 0
	}
	if !one.trial.IsZero() && now.Sub(one.trial) < breakMost { // another was quicker
		return time.Second
	}
	one.trial = now
	b.state.WithLabelValues(b.label(model)).Set(breakerHalfOpen)
	return 0
}

// done says how a call ended.
func (b *breakers) done(model string, now time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.of[model]
	if !isFault(err) {
		if one == nil {
			return
		}
		if !isWell(err) { // stopped, or overtaken: nothing was found out
			one.trial = time.Time{}
			return
		}
		delete(b.of, model)
		b.state.WithLabelValues(b.label(model)).Set(breakerClosed)
		return
	}
	if one == nil {
		one = &breaker{}
		b.of[model] = one
	}
	one.failures++
	if one.failures < breakAfter && one.until.IsZero() {
		return
	}
	if one.until.After(now) {
		return // a call that began before it opened
	}
	one.wait = min(max(2*one.wait, breakFirst), breakMost)
	one.until, one.trial = now.Add(one.wait), time.Time{}
	b.state.WithLabelValues(b.label(model)).Set(breakerOpen)
}

// isFault reports whether a call failed by the fault of the model or the way there.
func isFault(err error) bool {
	var refusal *ModelError
	switch {
	case errors.As(err, &refusal):
		return !refusal.Permanent() && !refusal.Busy()
	default:
		return errors.Is(err, errTooLong)
	}
}

// isWell reports whether the outcome of a call, which was no fault, says that the model
// is well.
func isWell(err error) bool {
	var refusal *ModelError
	return err == nil || errors.As(err, &refusal) && !errors.Is(err, context.Canceled)
}
