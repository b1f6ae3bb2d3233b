package cache

import "slices"

// Watch is interest in whatever becomes of a key, for as long as it lasts. A Wait is
// for one answer; a Watch costs no goroutine and no queue, so that many keys can be
// watched for hours.
type Watch struct {
	of   *Waiters
	on   waitKey
	hear func(Filled)
}

// Watch has hear called with every announcement about a key, one after the other in
// the order of Redis. It is called by the one goroutine that serves all who wait, so
// it must not block, and it may be called once more while Cancel returns.
//
// Announcements can be missed while the subscription is lost, and a change of a
// whole view is not announced: see Subscribed and Marks for when to Look.
func (w *Waiters) Watch(view, key string, hear func(Filled)) *Watch {
	watch := &Watch{of: w, on: waitKey{view, key}, hear: hear}
	w.mu.Lock()
	defer w.mu.Unlock()
	// A slice that is in use is not written to: deliver calls it without the lock.
	w.watching[watch.on] = append(slices.Clip(w.watching[watch.on]), watch)
	return watch
}

// Cancel ends the watch. It may be called more than once.
func (w *Watch) Cancel() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(w.of.watching[w.on]), func(one *Watch) bool { return one == w })
	if len(left) == 0 {
		delete(w.of.watching, w.on)
		return
	}
	w.of.watching[w.on] = left
}

// Subscribed returns a channel that is closed when the subscription begins again.
// What was announced before that may have been missed.
func (w *Waiters) Subscribed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.begins
}
