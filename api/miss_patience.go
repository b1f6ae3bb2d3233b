package api

import (
	"sync/atomic"
	"time"
)

// What was changed while Redis was away is dropped at once when it is back, and the
// workers who fill it come back as everybody does. So misses have more time then.
const (
	returnTakes = 5 * time.Second // since Redis answered again
	returnWait  = 2 * time.Second
)

// returning is when Redis came back last.
type returning struct{ at atomic.Pointer[time.Time] } // nil: it was never away

func (r *returning) note(now time.Time) { r.at.Store(&now) }

func (r *returning) lasts(now time.Time) bool {
	at := r.at.Load()
	return at != nil && now.Sub(*at) < returnTakes
}

// patienceFor is how long a request waits for an entry. Who has an old copy does not wait
// any longer for the return of Redis: the copy will do.
func (m *misses) patienceFor(a ask) time.Duration {
	switch {
	case a.wait != 0:
		return a.wait
	case !a.spare && m.returned.lasts(time.Now()):
		return max(m.patience, returnWait)
	default:
		return m.patience
	}
}
