package api

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/cache"
)

// How often the uses of sessions are written down, all in one round trip that no
// request waits for, and how many may gather.
const (
	touchEvery = time.Second
	maxTouches = 16384
)

// touches are sessions that were used. Each is written down once a minute, so that it
// lives a minute less after its last use than it might.
type touches struct {
	store *cache.Store
	ttl   time.Duration
	log   zerolog.Logger

	mu   sync.Mutex
	used []cache.Session
}

// every returns how often a session's use is written down.
func (t *touches) every() time.Duration { return min(time.Minute, t.ttl/4) }

func (t *touches) add(s cache.Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.used) < maxTouches {
		t.used = append(t.used, s)
	}
}

// run writes down what gathers until the context ends, and then what is left.
func (t *touches) run(ctx context.Context) {
	tick := time.NewTicker(touchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			t.write(context.WithoutCancel(ctx))
			return
		case <-tick.C:
			t.write(ctx)
		}
	}
}

func (t *touches) write(ctx context.Context) {
	t.mu.Lock()
	used := t.used
	t.used = nil
	t.mu.Unlock()
	if len(used) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	if err := t.store.TouchSessions(ctx, used, t.ttl); err != nil {
		t.log.Debug().Err(err).Int("sessions", len(used)).Msg("the use of sessions was not written down")
	}
}
