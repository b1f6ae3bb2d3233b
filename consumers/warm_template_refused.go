package consumers

import (
	"crypto/sha256"
	"sync"
	"time"
)

// refusals are the templates whose queries PostgreSQL refuses, since it judged them or has
// run them. They begin nothing: their events would fail one after another, and hold up
// those of other templates. The zero value has none.
type refusals struct {
	mu   sync.Mutex
	of   map[string]refused // by template
	news chan struct{}      // holds one when a query is refused that was right before
}

// refused is why a template is not used.
type refused struct {
	why  error    // *TemplateErrors
	seen *started // for which it was refused in use, though it looked right; nil: it looks wrong
}

// has reports whether a template's query is refused.
func (r *refusals) has(template string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, is := r.of[template]
	return is
}

// add notes that a query was refused in use, and reports whether that is new.
func (r *refusals) add(template string, one refused) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.of[template]; known {
		return false
	}
	if r.of == nil {
		r.of = map[string]refused{}
	}
	r.of[template] = one
	select {
	case r.news <- struct{}{}:
	default:
	}
	return true
}

// inUse returns why a query was refused in use; the zero value where it was not.
func (r *refusals) inUse(template string) refused {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one := r.of[template]; one.seen != nil {
		return one
	}
	return refused{}
}

// replace has these be all that there are.
func (r *refusals) replace(of map[string]refused) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of = of
}

// Bounds of what is remembered to have ended in a dead letter.
const (
	letterFor  = time.Hour
	maxLetters = 4096
)

// letters are the dead letters that were written of templates' events: one for what is
// wrong with an event is enough, however often it is repeated.
type letters struct {
	mu      sync.Mutex
	written map[[sha256.Size]byte]time.Time
}

// due reports whether a letter is to be written of what is wrong with an event.
func (l *letters) due(s *started, why string, now time.Time) bool {
	id := sha256.Sum256([]byte(s.template.Name + "\x00" + s.subject + "\x00" + s.data + "\x00" + why))
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, known := l.written[id]; known && now.Sub(at) < letterFor {
		return false
	}
	if l.written == nil {
		l.written = map[[sha256.Size]byte]time.Time{}
	}
	if len(l.written) >= maxLetters {
		for id, at := range l.written {
			if now.Sub(at) >= letterFor {
				delete(l.written, id)
			}
		}
	}
	if len(l.written) < maxLetters {
		l.written[id] = now
	}
	return true
}
