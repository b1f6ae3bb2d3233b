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
	watching   map[waitKey][]*Watch
	subscribed bool
	begins     chan struct{} // closed when the subscription begins again
}

type waitKey struct{ view, key string }

// NewWaiters makes waiters, who hear nothing until Run.
func (s *Store) NewWaiters() *Waiters {
	return &Waiters{
		store: s, waiting: map[waitKey]map[*Wait]struct{}{}, watching: map[waitKey][]*Watch{}, begins: make(chan struct{}),
	}
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

// deliver hands an announcement to those who wait for its key or watch it.
func (w *Waiters) deliver(payload string) error {
	view, key, err := announcedKey(payload)
	if err != nil {
		return err
	}
	if near := w.store.near.Load(); near != nil {
		near.announced(waitKey{view, key})
	}
	f, watches, err := w.handOver(payload, waitKey{view, key})
	if err != nil {
		return err
	}
	for _, watch := range watches {
		watch.hear(f) // without the lock: what it does is its own
	}
	return nil
}

// handOver gives an announcement to those who wait, and returns who watches.
func (w *Waiters) handOver(payload string, on waitKey) (Filled, []*Watch, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	waits, watches := w.waiting[on], w.watching[on]
	if len(waits) == 0 && len(watches) == 0 {
		return Filled{}, nil, nil
	}
	f, err := decodeFilled(payload)
	if err == nil {
		f.Entry, err = w.store.unsealed(f.Entry)
	}
	if err != nil {
		return Filled{}, nil, err
	}
	for wait := range waits {
		for !wait.offer(f) {
			select {
			case <-wait.c: // the oldest gives way
			default:
			}
		}
	}
	return f, watches, nil
}

func (w *Wait) offer(f Filled) bool {
	select {
	case w.c <- f:
		return true
	default:
		return false
	}
}
