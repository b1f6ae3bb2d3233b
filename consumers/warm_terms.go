package consumers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/cache"
	"mythiccache/producers/stream"
)

const (
	// defaultWarmInFlight is how many questions at a time nobody waits for.
	defaultWarmInFlight = 16
	// warmAge is how old a question may become for which nobody waits.
	warmAge = 10 * time.Minute
	// warmPatience is how long such a question waits for the budget's next window, and
	// askPatience how long one does for which somebody waits.
	warmPatience = time.Minute
	askPatience  = 10 * time.Second
)

func newDropped() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mythic_cache_ai_dropped_total", Help: "Questions that the model was not asked, or not again, by model and why: " +
			"budget, late, busy (with no_store), refused (a moment ago), failed (too often), refresh (an answer that is there), " +
			"or foreign (whoever asked expects the answer of other settings than this worker's).",
	}, []string{"model", "why"})
}

// admit lets a question in. Those for which nobody waits have places of their own, so
// that the others never find all taken.
func (w *Warmer) admit(ctx context.Context, d aiData) error {
	if !d.warm {
		return w.ask(ctx, d)
	}
	select {
	case w.warm <- struct{}{}:
		defer func() { <-w.warm }()
		if d.instead != nil {
			return w.askAgain(ctx, d)
		}
		return w.ask(ctx, d)
	default:
		return fmt.Errorf("as many questions as may be are asked ahead: %w", stream.ErrLater)
	}
}

// late reports whether nobody can want the answer any more: neither who asked, nor who has
// joined the question since. The app's own questions are never late.
func (w *Warmer) late(ctx context.Context, d aiData, now time.Time) (bool, error) {
	most := askAge
	switch {
	case d.durable:
		return false, nil
	case d.noStore:
		most = onceAge
	case d.warm:
		most = warmAge
	}
	if d.age(now) <= most {
		return false, nil
	}
	newest, durable, err := w.answers.Line(ctx, d.key, d.entry)
	if err != nil {
		return false, unavailable(err)
	}
	return !durable && now.Sub(newest) > most, nil
}

// age is how long ago the event came into the stream, or 0.
func (d *aiData) age(now time.Time) time.Duration {
	first, _, _ := strings.Cut(d.entry, "-")
	ms, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0
	}
	return now.Sub(time.UnixMilli(ms))
}

// drop leaves a question unanswered, and counts it. The event is done.
func (w *Warmer) drop(d aiData, why string) error {
	w.dropped.WithLabelValues(w.account.label(d.model), why).Inc()
	w.o.Templates.count(d.template, why)
	w.o.Log.Debug().Str("key", d.key).Str("why", why).Bool("warm", d.warm).Msg("question dropped")
	return nil
}

// notNowError says why the model is not called now.
type notNowError struct {
	why    string
	wait   time.Duration
	budget bool
	alone  bool // no other question is meant
}

func (e *notNowError) Error() string { return e.why + " for " + e.wait.Round(time.Second).String() }

// notNow returns the *notNowError of a model that is left alone at the moment, if it is.
func (w *Warmer) notNow(d aiData) error {
	now := time.Now()
	if left := w.pauses.left(d.model, now); left > 0 {
		return &notNowError{why: "the model wants no calls", wait: left}
	}
	if left := w.breakers.left(d, now); left > 0 {
		return &notNowError{why: "the model has failed too often", wait: left}
	}
	return nil
}

// mayCall takes the place that a call needs: of the breaker, and in the budgets. Its
// error is a *notNowError, or one of Redis.
func (w *Warmer) mayCall(ctx context.Context, d aiData) (cache.Spent, error) {
	quotas := w.o.Budgets.of(d.model)
	var held cache.Spent
	if len(quotas) > 0 {
		share := 1.0
		if d.warm {
			share = w.o.Budgets.share()
		}
		var err error
		if held, err = w.store.Spend(ctx, w.o.Budgets.account(d.model, w.o.Models), quotas, share, estimate(d.canonical)); err != nil {
			return cache.Spent{}, unavailable(err)
		}
		if held.Wait > 0 {
			return cache.Spent{}, &notNowError{why: "the budget is spent", wait: held.Wait, budget: true}
		}
	}
	if left := w.breakers.begin(d, time.Now()); left > 0 {
		w.giveUp(ctx, held)
		return cache.Spent{}, &notNowError{why: "the model has failed too often, and is left alone", wait: left}
	}
	return held, nil
}

// giveUp gives back what a call would have cost that is not made.
func (w *Warmer) giveUp(ctx context.Context, held cache.Spent) {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	if err := w.store.Unspend(ctx, held); err != nil {
		w.o.Log.Debug().Err(err).Msg("budget not given back")
	}
}

// settleSpent corrects the estimate by what the call has cost.
func (w *Warmer) settleSpent(ctx context.Context, held cache.Spent, usage cache.Usage, err error) {
	var refusal *ModelError
	actual := max(usage.TotalTokens, 0)
	switch {
	case errors.As(err, &refusal) && refusal.Status != 0: // nothing was made
	case actual == 0:
		return // it may have cost what was expected: a provider that does not say, a line that broke
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	if err := w.store.Correct(ctx, held, actual); err != nil {
		w.o.Log.Debug().Err(err).Msg("budget not corrected")
	}
}

// tellBusy gives the lease back, and tells those who wait when to ask again: of a
// question for which nobody waits there is nothing to tell, since others' terms are better.
func (w *Warmer) tellBusy(ctx context.Context, d aiData, lease cache.Lease, n *notNowError) error {
	if d.warm {
		w.letGo(ctx, lease)
		return nil
	}
	return w.giveBack(ctx, lease, cache.BusyReason(n.wait, n.why))
}

// putOff decides what becomes of a question that is not asked now. The lease is held.
func (w *Warmer) putOff(ctx context.Context, d aiData, lease cache.Lease, err error) error {
	var n *notNowError
	if !errors.As(err, &n) {
		return errors.Join(err, w.giveBack(ctx, lease, "the budget is not known"))
	}
	patience := askPatience
	if d.warm {
		patience = warmPatience
	}
	if n.budget && n.wait <= patience { // who asked can wait, too
		if err := w.giveBack(ctx, lease, n.Error()); err != nil {
			return err
		}
		return fmt.Errorf("%w: %w", n, stream.LaterBy(min(n.wait, lookAgain)))
	}
	if err := w.tellBusy(ctx, d, lease, n); err != nil {
		return err
	}
	if n.alone {
		return w.putBy(ctx, d, n.wait, n)
	}
	if !n.budget {
		return w.putBy(ctx, d, min(n.wait, lookAgain), n)
	}
	if d.warm {
		if d.template != "" { // an event that asks it once more is to be heeded when there is a budget again
			w.note("what was asked ahead is still noted", d.key, w.answers.NoteAheadLess(ctx, n.wait, d.key))
		}
		return w.forgo(ctx, d, "budget")
	}
	if err := w.answers.Drop(ctx, d.scope, d.key, n.wait, n.why); err != nil { // who comes back later is told
		return unavailable(err)
	}
	return w.drop(d, "budget")
}
