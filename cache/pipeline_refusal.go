package cache

import (
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// refusalOver is for how long Redis must have refused nothing, so that a refusal is
// over: in a failover one connection may be refused what another is not.
const refusalOver = 5 * time.Second

// refusal remembers that Redis does not run the limiter, so that callers are admitted by
// this process's own count, and says so when it begins and when it is over.
type refusal struct {
	mu    sync.Mutex
	said  bool
	since time.Time // when Redis last refused
}

// note takes in whether Redis has refused to run the limiter.
func (r *refusal) note(log *zerolog.Logger, refused error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case refused != nil:
		if r.since = now; !r.said {
			r.said = true
			log.Warn().Err(refused).Msg("redis does not run the limiter; each process admits callers by its own count")
		}
	case r.said && now.Sub(r.since) >= refusalOver:
		r.said = false
		log.Info().Msg("redis runs the limiter again; limits are counted for all processes")
	}
}
