package cache

import "time"

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

// KeepsNear reports whether the reader keeps entries in memory.
func (r *Reader) KeepsNear() bool { return r.near != nil }
