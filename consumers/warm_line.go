package consumers

import "sync"

// lines are the events of this process that ask for the same answer at a time.
type lines struct {
	mu sync.Mutex
	of map[string]*line
}

// line is what becomes of the first of them.
type line struct {
	warm bool          // nobody waits for what the first asks
	done chan struct{} // closed once err stands
	err  error
}

func newLines() lines { return lines{of: map[string]*line{}} }

// join returns the line of a key, and whether the caller is its first, who must
// leave it.
func (l *lines) join(key string, warm bool) (q *line, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q, ok := l.of[key]; ok {
		return q, false
	}
	q = &line{warm: warm, done: make(chan struct{})}
	l.of[key] = q
	return q, true
}

// leave ends a line: who waits in it learns what became of its first.
func (l *lines) leave(key string, q *line, err error) {
	l.mu.Lock()
	delete(l.of, key)
	l.mu.Unlock()
	q.err = err
	close(q.done)
}
