package cache

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"
)

// soonFor bounds how long Soon waits.
const soonFor = 100 * time.Millisecond

// Soon reads what can be had within a moment: what is a Hit in memory or in Redis, or
// that the caller is over the Limit, which is final. It reports whether that could be
// had. If not, nothing counts against the Limit, unless Redis was silent: then one
// request does, and Soon asks Redis for nothing in the next seconds, since who asks again
// in earnest counts twice. What is a Miss is read twice, by Soon and in earnest.
func (r *Reader) Soon(ctx context.Context, q Query) (Result, bool) {
	result, found := r.nearHit(&q)
	if found && r.takeAhead(&q, &result) {
		return result, true
	}
	if !r.running.Load() || r.pipeline.ails(soonFor) || r.slow.pauses(r.sinceBegun()) {
		return Result{}, false
	}
	started := time.Now()
	var paid toll
	var err error
	if found {
		err = r.askLimiter(ctx, &q, &result, soonFor)
	} else {
		result, err = r.fetch(ctx, &q, &paid, soonFor)
	}
	r.slow.note(err, time.Since(started), r.sinceBegun())
	switch {
	case err != nil:
		r.giveBack(ctx, &q, &paid)
		return Result{}, false
	case result.Status == Hit || result.Why == WhyLimited:
		r.noteSoon(&result, found, started)
		return result, true
	case q.Limit != nil && result.Admission.Allowed:
		now := time.Now()
		r.allowances.back(q.Limit, now, now)
	}
	return Result{}, false
}

// noteSoon counts what Soon has read with Redis's help.
func (r *Reader) noteSoon(result *Result, found bool, started time.Time) {
	switch {
	case found:
		r.near.hits.Add(1)
		r.store.noteRead(result, 0)
		return
	case r.near != nil:
		r.near.passed.Add(1)
	}
	r.store.noteRead(result, r.store.observe("read", started))
	if result.Early { // who has it made anew remembers the key, and this one is a part of a request
		result.Entry.Key = strings.Clone(result.Entry.Key)
	}
}

// nearHit finds a Hit in memory. It never waits, and counts nothing.
func (r *Reader) nearHit(q *Query) (Result, bool) {
	if r.near == nil || !r.running.Load() {
		return Result{}, false
	}
	old, whole := r.near.find(q.View.Name, q.Key)
	if old == nil {
		return Result{}, false
	}
	return r.hit(q, old, whole)
}

// takeAhead admits who has been found an entry in memory by what was taken ahead, where
// there is a Limit, and reports whether that did. If so, the read is counted.
func (r *Reader) takeAhead(q *Query, result *Result) bool {
	if q.Limit != nil {
		var ok bool
		if result.Admission, ok = r.allowances.take(q.Limit, time.Now()); !ok {
			return false
		}
	}
	r.near.hits.Add(1)
	r.store.noteRead(result, 0)
	return true
}

// slowPause is for how long a Redis is not asked by who cannot wait, once it took longer
// than soonFor.
const slowPause = 3 * time.Second

// slowness says whether Redis is too slow for who cannot wait. Moments count from any
// one that stays the same.
type slowness struct{ until atomic.Int64 } // when it may be asked again; 0: it is not slow

// pauses reports whether Redis is not to be asked now. After a pause one may try, and
// the others wait for how that ends.
func (s *slowness) pauses(now time.Duration) bool {
	until := s.until.Load()
	return until != 0 && (now < time.Duration(until) || !s.until.CompareAndSwap(until, int64(now+slowPause)))
}

// note notes how long Redis took. To be no longer slow it must be well within soonFor:
// at the edge of it every other request would count twice.
func (s *slowness) note(err error, took, now time.Duration) {
	switch {
	case errors.Is(err, errImpatient):
		s.until.Store(int64(now + slowPause))
	case err == nil && took < soonFor/2 && s.until.Load() != 0:
		s.until.Store(0)
	}
}

// sinceBegun is the time that has passed since the reader was made.
func (r *Reader) sinceBegun() time.Duration { return time.Since(r.pipeline.began) }
