package cache

import (
	"errors"
	"sync"
)

// Waiters are those in this process who wait for keys to be filled. They share
// one subscription.
type Waiters struct {
	store *Store

	mu         sync.Mutex
	waiting    map[waitKey]map[*Wait]struct{}
	subscribed bool
}

type waitKey struct{ view, key string }

// NewWaiters makes waiters, who hear nothing until Run.
func (s *Store) NewWaiters() *Waiters {
	return &Waiters{store: s, waiting: map[waitKey]map[*Wait]struct{}{}}
}

// Wait is one who waits for a key.
type Wait struct {
	of *Waiters
	on waitKey
	c  chan Filled
}

// announcementsKept is how many announcements wait for a waiter that is busy.
// When there are more, the oldest give way: the newest tells most.
const announcementsKept = 4

// Wait registers interest in a key. Register before asking for the fill, or its
// announcement may come too early to be heard. Cancel when done.
func (w *Waiters) Wait(view, key string) *Wait {
	wait := &Wait{of: w, on: waitKey{view, key}, c: make(chan Filled, announcementsKept)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting[wait.on] == nil {
		w.waiting[wait.on] = map[*Wait]struct{}{}
	}
	w.waiting[wait.on][wait] = struct{}{}
	return wait
}

// C delivers the announcements about the key. It is never closed.
func (w *Wait) C() <-chan Filled { return w.c }

// Cancel ends the wait. It may be called more than once.
func (w *Wait) Cancel() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	delete(w.of.waiting[w.on], w)
	if len(w.of.waiting[w.on]) == 0 {
		delete(w.of.waiting, w.on)
	}
}

// Waiting returns how many wait.
func (w *Waiters) Waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, waits := range w.waiting {
		n += len(waits)
	}
	return n
}

// Ready returns nil while announcements are heard.
func (w *Waiters) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.subscribed {
		return errors.New("not subscribed to announcements")
	}
	return nil
}

// deliver hands an announcement to those who wait for its key.
func (w *Waiters) deliver(payload string) error {
	view, key, err := announcedKey(payload)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	waits := w.waiting[waitKey{view, key}]
	if len(waits) == 0 {
		return nil
	}
	f, err := decodeFilled(payload)
	if err != nil {
		return err
	}
	for wait := range waits {
		for !wait.offer(f) {
			select {
			case <-wait.c: // the oldest gives way
			default:
			}
		}
	}
	return nil
}

func (w *Wait) offer(f Filled) bool {
	select {
	case w.c <- f:
		return true
	default:
		return false
	}
}
