package consumers

import (
	"sync"
	"time"
)

// longestPause bounds how long a provider may have us wait between two calls; an
// event that it refuses again then is put off again.
const longestPause = time.Minute

// maxPauses bounds the models that are remembered to want no calls: their names may be
// the callers'.
const maxPauses = 1024

// pauses are the times until which models want no calls.
type pauses struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func newPauses() pauses { return pauses{until: map[string]time.Time{}} }

// left returns how long a model is to be left alone.
func (p *pauses) left(model string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.until[model].Sub(now), 0)
}

// extend leaves a model alone for longer, and reports whether it was not before.
func (p *pauses) extend(model string, now time.Time, d time.Duration) (began bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, known := p.until[model]
	if !known && len(p.until) >= maxPauses {
		for name, until := range p.until {
			if !until.After(now) {
				delete(p.until, name)
			}
		}
		if len(p.until) >= maxPauses {
			return false // its next answer says so again
		}
	}
	if until := now.Add(d); until.After(before) {
		p.until[model] = until
	}
	return !before.After(now)
}

// slowDown heeds what a provider said about when to come back.
func (w *Warmer) slowDown(model string, refusal *ModelError) {
	wait := refusal.RetryAfter
	if wait == 0 {
		wait = time.Second
	}
	wait = min(wait, longestPause)
	if w.pauses.extend(model, time.Now(), wait) {
		w.o.Log.Info().Str("model", w.account.label(model)).Str("provider", w.o.Model.Name()).Int("status", refusal.Status).Dur("for", wait).
			Msg("the model is busy; calls pause")
	}
}
