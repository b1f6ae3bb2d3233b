package cache

import (
	"sync"
	"time"
)

// flights are the answers that this process is getting, one for each key.
type flights struct {
	mu    sync.Mutex
	byKey map[string]*flight
}

// flight is one answer on its way, which several may wait for.
type flight struct {
	began  time.Time
	marks  int // see mark
	done   chan struct{}
	result result // once done is closed
}

// result is what became of a question.
type result struct {
	body []byte // where there is no error
	err  error
	good int // it was so at this mark; 0: it answers nobody but whoever brought it
}

// join returns the flight of a key, and how many marks it has. The first to join
// makes it, and must land it. One that has been away for longer than it can be is
// given up: its function heeds no context.
func (a *flights) join(key string, longest time.Duration) (f *flight, marks int, first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.byKey[key]; f != nil && time.Since(f.began) < longest {
		return f, f.marks, false
	}
	if a.byKey == nil {
		a.byKey = map[string]*flight{}
	}
	f = &flight{began: time.Now(), done: make(chan struct{})}
	a.byKey[key] = f
	return f, 0, true
}

// mark makes a mark and returns its number. What is known to be so after a mark
// answers those who joined before it. Were a result for all who joined:
//
//  1. the function begins, and reads a book;
//  2. somebody changes the book, and Forget returns;
//  3. somebody asks, and joins;
//  4. the function returns the book as it was, for 3 as well.
//
// So there is a mark before the function is called. Where its result is then put
// under the lease, there was no Forget until then, so it has one before the put.
func (a *flights) mark(f *flight) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	f.marks++
	return f.marks
}

// land hands the result to those who joined.
func (a *flights) land(key string, f *flight, r result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byKey[key] == f {
		delete(a.byKey, key)
	}
	f.result = r
	close(f.done)
}

// answers reports whether the result, once there, answers one who joined when
// there were so many marks.
func (f *flight) answers(joined int) bool { return joined < f.result.good }
