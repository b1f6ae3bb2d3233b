package cache

import (
	"context"
	"time"
)

// soonFor bounds how long Soon waits.
const soonFor = 100 * time.Millisecond

// Soon reads what can be had within a moment: what Near finds, and what is a Hit in
// Redis. It reports whether that could be had; if not, nothing counts against the Limit,
// unless Redis was silent.
func (r *Reader) Soon(ctx context.Context, q Query) (Result, bool) {
	if result, ok := r.Near(q); ok {
		return result, true
	}
	if !r.running.Load() || r.pipeline.ails(soonFor) {
		return Result{}, false
	}
	started := time.Now()
	result, err := r.fetch(ctx, &q, started, soonFor)
	switch {
	case err != nil:
		return Result{}, false
	case result.Status == Hit:
		r.store.noteRead(&result, r.store.observe("read", started))
		if r.near != nil {
			r.near.passed.Add(1)
		}
		return result, true
	case q.Limit != nil && result.Admission.Allowed:
		r.allowances.back(q.Limit, time.Now())
	}
	return Result{}, false
}

// Near reads what can be had without asking Redis for anything: a Hit from memory, and
// where there is a Limit, an admission that was taken ahead. It reports whether that
// could be had; if not, nothing has happened. It never waits.
func (r *Reader) Near(q Query) (Result, bool) {
	if r.near == nil || !r.running.Load() {
		return Result{}, false
	}
	old, whole := r.near.find(q.View.Name, q.Key)
	if old == nil {
		return Result{}, false
	}
	result, ok := r.hit(&q, old, whole)
	if ok && q.Limit != nil {
		result.Admission, ok = r.allowances.take(q.Limit, time.Now())
	}
	if !ok {
		return Result{}, false
	}
	r.near.hits.Add(1)
	r.store.noteRead(&result, 0)
	return result, true
}
