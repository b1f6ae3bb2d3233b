package consumers

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A breaker opens when so many have failed in a row, for breakFirst; each trial that
// fails doubles that up to breakMost.
const (
	breakAfter = 5
	breakFirst = 5 * time.Second
	breakMost  = time.Minute
	// breakYield is how much longer those wait for a trial whose own calls have failed. An
	// event that waits comes back half of lookAgain after the time is over, at most, so the
	// others are first.
	breakYield = 3 * time.Second
)

// maxBreakers bounds the breakers that are remembered, and maxFailed the names that one
// of them knows: both come from callers.
const (
	maxBreakers = 4096
	maxFailed   = 64
	maxAsker    = 64 // bytes of the name of who asks; longer ones are none
)

// States of a breaker, as the metric has them.
const (
	breakerClosed = 0
	breakerPartly = 1 // one call finds out, or some callers' calls do not go through
	breakerOpen   = 2
)

// breaker keeps calls away that fail, for a while.
type breaker struct {
	failed  map[string]bool // who has failed since the last call that went well
	until   time.Time       // it is open; zero: it is closed
	wait    time.Duration   // how long it was opened for
	trial   time.Time       // when the one call began that is to find out; zero: there is none
	by      string          // the question of that call
	touched time.Time
}

// breakerName names a breaker.
type breakerName struct{ model, scope string }

// breakers are those of the models that this process has asked and that have failed.
// There are two of each call:
//
//   - that of the model, which counts callers, each once: it opens when so many different
//     ones have failed. A caller is a scope; of one that is nobody's, such as that of
//     answers which everybody may have, who asks in it;
//   - that of the caller with this model, which counts questions, each once.
//
// So one caller's questions at which the model fails keep nobody else's away, however
// many there are, and a question that is tried again and again keeps away no other. What
// a request brings upon itself is no failure, nor is being busy: the provider says then
// when to come back.
type breakers struct {
	label  func(model string) string
	trials time.Duration // how long a call may take, after which its end is told no more
	state  *prometheus.GaugeVec

	mu sync.Mutex
	of map[breakerName]*breaker
}

func newBreakers(label func(string) string, trials time.Duration) *breakers {
	return &breakers{
		label: label, trials: trials, of: map[breakerName]*breaker{},
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mythic_cache_ai_breaker",
			Help: "Whether calls of a model go through: 0 they do, 1 one is to find out, or those of some callers do not, 2 they do not.",
		}, []string{"model"}),
	}
}

// left returns how long who has failed or not is to wait. Where it says 0 a call may be
// made; of a breaker whose time is over only one, whose end is told within the time of
// trials.
func (one *breaker) left(who string, now time.Time, trials time.Duration) time.Duration {
	switch {
	case one == nil || one.until.IsZero():
		return 0
	case one.until.After(now):
		return one.until.Sub(now)
	case !one.trial.IsZero() && now.Sub(one.trial) < trials:
		return time.Second
	case one.failed[who]:
		return max(one.until.Add(breakYield).Sub(now), 0)
	default:
		return 0
	}
}

// counted is a breaker, and whom of a call it counts.
type counted struct {
	name breakerName
	who  string
}

// both returns the two breakers of a question.
func both(d aiData) [2]counted {
	caller := d.caller()
	return [2]counted{{breakerName{model: d.model}, caller}, {breakerName{model: d.model, scope: caller}, d.key}}
}

// caller is whose calls those of a question are: its scope's, or where that is nobody's,
// those of who asks in it. No user's scope has a NUL in it.
func (d *aiData) caller() string {
	if d.asker == "" || !strings.HasPrefix(d.scope, "\x00") {
		return d.scope
	}
	return d.scope + "\x00" + d.asker
}

// left returns how long a question is to wait.
func (b *breakers) left(d aiData, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wait(d, now)
}

func (b *breakers) wait(d aiData, now time.Time) (left time.Duration) {
	for _, one := range both(d) {
		left = max(left, b.of[one.name].left(one.who, now, b.trials))
	}
	return left
}

// begin is left for who is about to call, and takes the one place that there may be.
func (b *breakers) begin(d aiData, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if left := b.wait(d, now); left > 0 {
		return left
	}
	trial := false
	for _, one := range both(d) {
		if found := b.of[one.name]; found != nil && !found.until.IsZero() {
			found.trial, found.by, found.touched, trial = now, d.key, now, true
		}
	}
	if trial {
		b.tell(d.model)
	}
	return 0
}

// done says how a call ended.
func (b *breakers) done(d aiData, now time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of[both(d)[0].name] == nil && b.of[both(d)[1].name] == nil && !isFault(err) {
		return
	}
	for _, one := range both(d) {
		found := b.of[one.name]
		switch {
		case isFault(err):
			b.fail(one.name, one.who, now)
		case found == nil:
		case isWell(err):
			delete(b.of, one.name)
		case found.by == d.key: // stopped, or overtaken: nothing was found out
			found.trial = time.Time{}
		}
	}
	b.tell(d.model)
}

// fail counts a failure.
func (b *breakers) fail(name breakerName, who string, now time.Time) {
	one := b.of[name]
	if one == nil {
		if b.forget(now); len(b.of) >= maxBreakers {
			return
		}
		one = &breaker{failed: map[string]bool{}}
		b.of[name] = one
	}
	one.touched = now
	if len(one.failed) < maxFailed {
		one.failed[who] = true
	}
	if len(one.failed) < breakAfter && one.until.IsZero() || one.until.After(now) { // of an open one: a call that began before
		return
	}
	one.wait = min(max(2*one.wait, breakFirst), breakMost)
	one.until, one.trial = now.Add(one.wait), time.Time{}
}

// forget makes room, where there is none, by what nobody has called for long.
func (b *breakers) forget(now time.Time) {
	if len(b.of) < maxBreakers {
		return
	}
	for name, one := range b.of {
		if now.Sub(one.touched) > 2*breakMost {
			delete(b.of, name)
		}
	}
}

// tell sets the metric of a model.
func (b *breakers) tell(model string) {
	state := breakerClosed
	for name, one := range b.of {
		switch {
		case name.model != model || one.until.IsZero():
		case name.scope != "" || !one.trial.IsZero():
			state = max(state, breakerPartly)
		default:
			state = breakerOpen
		}
	}
	b.state.WithLabelValues(b.label(model)).Set(float64(state))
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
