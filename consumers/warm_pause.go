package consumers

import (
	"context"
	"sync"
	"time"

	"mythiccache/cache"
)

// longestPause bounds how long a provider may have us wait between two calls; an
// event that it refuses again then is put off again.
const longestPause = time.Minute

// longestDeferral bounds how long one question is left alone: longer than all are, or
// nobody else could show in between that the model takes others.
const longestDeferral = 3 * longestPause

// maxPauses bounds the models that are remembered to want no calls: their names may be
// the callers'.
const maxPauses = 1024

// pauses are what is known of the models that want no calls for a while.
type pauses struct {
	mu sync.Mutex
	of map[string]*pause
}

// pause is that of one model.
type pause struct {
	until   time.Time // it wants no calls
	refused time.Time // when it said so last, of whatever question
	well    time.Time // when the latest call began that it took
}

func newPauses() pauses { return pauses{of: map[string]*pause{}} }

// left returns how long a model is to be left alone.
func (p *pauses) left(model string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.of[model]; one != nil {
		return max(one.until.Sub(now), 0)
	}
	return 0
}

// one returns what is known of a model, nil where there is no room for it.
func (p *pauses) one(model string, now time.Time) *pause {
	if known := p.of[model]; known != nil {
		return known
	}
	if len(p.of) >= maxPauses {
		for name, one := range p.of {
			if !one.until.After(now) && now.Sub(one.well) > longestPause {
				delete(p.of, name)
			}
		}
	}
	if len(p.of) >= maxPauses {
		return nil // its next answer says so again
	}
	known := &pause{}
	p.of[model] = known
	return known
}

// took notes that a model takes calls, such as the one that began at a time.
func (p *pauses) took(model string, began time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.one(model, began); one != nil && began.After(one.well) {
		one.well = began
	}
}

// extend leaves a model alone for longer, and reports whether it was not before.
func (p *pauses) extend(model string, now time.Time, d time.Duration) (began bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.one(model, now)
	if one == nil {
		return false
	}
	began = !one.until.After(now)
	if until := now.Add(d); until.After(one.until) {
		one.until = until
	}
	one.refused = now
	return began
}

// spares notes that a model has no time for a question, and reports whether that is for
// the question alone to heed: it was so before, and both since then and since any question
// was refused last the model has taken a call that began later.
func (p *pauses) spares(model string, now time.Time, before cache.Deferral) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.one(model, now)
	if one == nil || before.Times == 0 || !one.well.After(one.refused) || !one.well.After(now.Add(-before.Since)) {
		return false
	}
	one.refused = now
	return true
}

// heed does what a provider wants that has no time. Two may be meant, and it does not say
// which:
//
//   - the model has too many calls. It is left alone by all for as long as the provider
//     says;
//   - the one question is too much, such as a prompt with more tokens than there are in a
//     minute, and would be so each time. To leave the model alone would then take it away
//     from everybody for as long as that question is asked.
//
// So the first time it is the model that is left alone. Later times it is so, too, unless
// other calls have gone well since. The question itself is left alone in any case, twice as
// long each time. It returns whether the question alone is meant, and for how long it is
// left alone.
func (w *Warmer) heed(ctx context.Context, d aiData, refusal *ModelError) (alone bool, wait time.Duration) {
	wait = refusal.RetryAfter
	if wait == 0 {
		wait = time.Second
	}
	wait = min(wait, longestPause)
	now := time.Now()
	if alone = w.pauses.spares(d.model, now, d.before); !alone && w.pauses.extend(d.model, now, wait) {
		w.o.Log.Info().Str("model", w.account.label(d.model)).Str("provider", w.o.Model.Name()).Int("status", refusal.Status).Dur("for", wait).
			Msg("the model is busy; calls pause")
	}
	wait = min(wait<<min(d.before.Times, 16), longestDeferral)
	ctx, cancel := afterwards(ctx)
	defer cancel()
	w.note("a question not noted that is put off", d.key, w.answers.Defer(ctx, w.question(d), d.before.Times+1, wait))
	return alone, wait
}

// question names what is asked, also where each time has a key of its own.
func (w *Warmer) question(d aiData) string {
	if !d.noStore {
		return d.key
	}
	key, _, err := cache.AnswerKey(w.o.Model.Name(), d.scope, d.canonical)
	if err != nil {
		return d.key // it was read before, so this cannot be
	}
	return key
}

// deferral is how long a question is left alone, where Claim has not said so.
func (w *Warmer) deferral(ctx context.Context, d aiData, claimed cache.Failure) (cache.Deferral, error) {
	if !d.noStore {
		return claimed.Deferral, nil
	}
	return w.answers.Deferred(ctx, w.question(d))
}
