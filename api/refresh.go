package api

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
)

// How requests to make entries anew are sent: so many at a time, each for so long,
// and one of a key in so long. One that was lost is made good by those who miss.
const (
	refreshesAtOnce = 32
	refreshTimeout  = time.Second
	refreshEvery    = time.Second
)

// refreshes asks for the next of entries that are still fresh (cache.Result.Early).
// Nobody waits for it: what comes of it is found by those who read later.
type refreshes struct {
	publisher Publisher
	log       zerolog.Logger
	sending   chan struct{} // holds a place for each that is under way

	mu    sync.Mutex
	asked map[refreshKey]time.Time // when each was asked for
	swept time.Time
}

type refreshKey struct{ view, key string }

func newRefreshes(publisher Publisher, log zerolog.Logger) *refreshes {
	return &refreshes{publisher: publisher, log: log, sending: make(chan struct{}, refreshesAtOnce), asked: map[refreshKey]time.Time{}}
}

// ask sends a request, unless one was sent for the key just now or too many are on
// their way. It does not wait.
func (r *refreshes) ask(v *view.View, e cache.Entry) { r.send(v, e, renewRequest(v, e), func() {}) }

// send is ask with an event of another form. It calls lost where that is not sent, or
// nobody knows whether it was.
func (r *refreshes) send(v *view.View, e cache.Entry, request event.Event, lost func()) {
	select {
	case r.sending <- struct{}{}:
	default:
		lost()
		return
	}
	if !r.first(refreshKey{v.Name, e.Key}, time.Now()) {
		<-r.sending
		lost()
		return
	}
	go func() {
		defer func() { <-r.sending }()
		ctx, cancel := context.WithTimeout(context.Background(), refreshTimeout)
		defer cancel()
		if _, err := r.publisher.Append(ctx, request); err != nil {
			r.log.Debug().Err(err).Str("view", v.Name).Msg("an entry was not asked for before its time")
			lost()
		}
	}()
}

// first reports whether nobody has asked for a key just now, and notes that somebody
// has.
func (r *refreshes) first(k refreshKey, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.swept) >= refreshEvery {
		r.swept = now
		for k, asked := range r.asked {
			if now.Sub(asked) >= refreshEvery {
				delete(r.asked, k)
			}
		}
	}
	if asked, ok := r.asked[k]; ok && now.Sub(asked) < refreshEvery {
		return false
	}
	r.asked[k] = now
	return true
}

// wait waits for the requests that are on their way. What begins meanwhile may be
// waited for, too.
func (r *refreshes) wait() {
	for range refreshesAtOnce {
		r.sending <- struct{}{}
	}
	for range refreshesAtOnce {
		<-r.sending
	}
}
