package consumers

import (
	"context"
	"errors"
	"sync"
	"time"

	"mythiccache/cache"
)

// strangeEvery is how often it is said at most that questions are for other settings.
const strangeEvery = 10 * time.Minute

// strange is when that was last said.
type strange struct {
	mu   sync.Mutex
	said time.Time
}

// due reports whether it is to be said now.
func (s *strange) due(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.said.IsZero() && now.Sub(s.said) < strangeEvery {
		return false
	}
	s.said = now
	return true
}

// foreign leaves a question unanswered whose answer would stand under another key than
// that of which whoever asked expects it: that process knows another provider, or reads
// requests otherwise. To ask the model would cost money, and nobody would find what it says.
// Who waits is told; but where somebody else makes that answer, word is for that one to give.
func (w *Warmer) foreign(ctx context.Context, d aiData) error {
	if w.strange.due(time.Now()) {
		w.o.Log.Warn().Str("key", d.awaits).Str("source", d.source).Str("provider", w.o.Model.Name()).
			Msg("a question is for another provider than this worker's: are LLM_BASE_URL and AI_MODELS the same in all processes?")
	}
	found, err := w.store.Inspect(ctx, w.o.View, d.awaits)
	if err == nil && found.Holder == "" && !d.warm {
		const why = "the workers ask another model than this server knows"
		err = errors.Join(w.answers.NoteDropped(ctx, d.scope, d.awaits, givenUpFor, why),
			w.store.AnnounceFailure(ctx, w.o.View.Name, d.awaits, nil, cache.BusyReason(givenUpFor, why)))
	}
	if err != nil {
		return unavailable(err)
	}
	return w.drop(d, "foreign")
}
