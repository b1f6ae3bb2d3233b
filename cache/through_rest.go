package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// restFor is how long Redis is left alone after a look that failed, by all but one,
// so that not everybody who asks waits for it in vain.
const restFor = 500 * time.Millisecond

// errResting says that Redis could not be used a moment ago.
var errResting = errors.New("redis is left alone")

// rest remembers that Redis could not be used.
type rest struct {
	until atomic.Pointer[time.Time] // nil: it could
}

// over reports whether to try Redis. When the time is over, one does; the others
// wait for what becomes of it.
func (r *rest) over() bool {
	until := r.until.Load()
	if until == nil {
		return true
	}
	return time.Now().After(*until) && r.until.CompareAndSwap(until, later())
}

// note takes note of how a look at Redis ended.
func (r *rest) note(well bool) {
	switch {
	case !well:
		r.until.Store(later())
	case r.until.Load() != nil:
		r.until.Store(nil)
	}
}

func later() *time.Time {
	t := time.Now().Add(restFor)
	return &t
}

// ended returns why a context has ended, also where its deadline has passed and its
// timer comes a moment after that of a connection.
func ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}
