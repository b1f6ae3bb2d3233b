package consumers

import (
	"context"
	"errors"
	"sync"

	"github.com/rs/zerolog"
)

// health logs when the loads of a view begin to fail and when they work again,
// and says nothing in between.
type health struct {
	log zerolog.Logger

	mu  sync.Mutex
	bad map[string]string // view to the kind of its failure
}

func newHealth(log zerolog.Logger) *health {
	return &health{log: log, bad: make(map[string]string)}
}

func (h *health) note(view string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was, now := h.bad[view], ""
	if err != nil {
		now = outcomeOf(err)
	}
	if was == now {
		return
	}
	h.bad[view] = now
	if err == nil {
		h.log.Info().Str("view", view).Msg("view loads again")
		return
	}
	h.log.Warn().Err(err).Str("view", view).Str("outcome", now).Msg("view cannot be loaded")
}

// outcomeOf names how a load ended, in few words: it labels metrics and travels
// in announcements.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "loaded"
	case errors.Is(err, ErrPaused):
		return "postgres away"
	case errors.Is(err, ErrNoEpoch):
		return "no epoch"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), sqlState(err) == pgQueryCanceled:
		return "timeout"
	}
	return "failed"
}
