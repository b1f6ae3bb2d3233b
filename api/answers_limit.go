package api

import (
	"sync"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
)

// turnedAway remembers who has asked too much, until they may ask again. A question is
// limited with the look for its answer, in one round trip, and so once its key has been
// made of it, which takes time that somebody over the limit is not to take.
type turnedAway struct {
	store *cache.Store

	mu    sync.Mutex
	until map[limitedCaller]time.Time
}

type limitedCaller struct{ bucket, caller string }

// turnedAwayMost bounds who is remembered; the others cost a key each time.
const turnedAwayMost = 10_000

func newTurnedAway(store *cache.Store) *turnedAway {
	return &turnedAway{store: store, until: map[limitedCaller]time.Time{}}
}

// look returns the problem of somebody who may not ask yet.
func (t *turnedAway) look(x *exchange) error {
	rule := x.route.rule
	if rule == nil || x.caller.limited == "" {
		return nil
	}
	k := limitedCaller{rule.bucket, x.caller.limited}
	t.mu.Lock()
	left := time.Until(t.until[k])
	if left <= 0 {
		delete(t.until, k)
	}
	t.mu.Unlock()
	if left <= 0 {
		return nil
	}
	said := cache.Admission{Limit: rule.count, Reset: left, RetryAfter: left}
	rule.announce(&x.values, x.Header(), said)
	return rule.refusal(said)
}

// read is x.read for a question. One that is asked once has no answer yet.
func (t *turnedAway) read(x *exchange, v *view.View, q *question) (cache.Result, error) {
	if x.atOnce && q.nonce != "" {
		return cache.Result{}, errNotAtOnce
	}
	result, err := x.read(v, q.key, nil)
	if err != nil {
		t.note(x, result.Admission)
	}
	return result, err
}

// charge counts a request that turned out to be none, and returns what is wrong with it,
// or with asking so often. It asks Redis, so the lane leaves it to net/http.
func (t *turnedAway) charge(x *exchange, err error) error {
	if x.atOnce {
		return errNotAtOnce
	}
	rule := x.route.rule
	if rule == nil || x.caller.limited == "" {
		return err
	}
	said, failed := t.store.Admit(x.request.Context(), rule.limit(x.caller))
	if failed != nil {
		return err
	}
	rule.announce(&x.values, x.Header(), said)
	if said.Allowed {
		return err
	}
	t.note(x, said)
	return rule.refusal(said)
}

// note remembers who was not admitted.
func (t *turnedAway) note(x *exchange, said cache.Admission) {
	if x.route.rule == nil || said.Allowed || said.RetryAfter <= 0 {
		return
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.until) >= turnedAwayMost {
		for k, until := range t.until {
			if !now.Before(until) {
				delete(t.until, k)
			}
		}
	}
	if len(t.until) < turnedAwayMost {
		t.until[limitedCaller{x.route.rule.bucket, x.caller.limited}] = now.Add(said.RetryAfter)
	}
}
