package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"mythiccache/cache/version"
	"mythiccache/producers/event"
)

// interleavingEvent is an event and the transactions that it tells of: none of the app's
// own event, which tells of all of its key that were over when it was applied.
type interleavingEvent struct {
	event.Event
	tells []keyedXid
}

// done says which transactions are told of when a group has handled the event: ask
// before it does. An event that names no version or no key is nothing to precompute.
func (e interleavingEvent) done(group int, o *interleavingOracle) []keyedXid {
	switch {
	case group == toPrecompute && (e.Version == "" || e.Subject == ""):
		return nil
	case e.Version == "":
		return o.over(e.Subject)
	}
	return e.tells
}

// The two groups, each of which gets every event.
const (
	toInvalidate = iota
	toPrecompute
)

// relay takes a snapshot and tells of what it has seen that the ones before had not, under
// its version.
func (w *interleavingWorld) relay(ctx context.Context) error {
	s, err := w.snapshot(ctx)
	if err != nil {
		return err
	}
	if err := w.shelf.ensure(ctx, s.Version()); err != nil {
		return err
	}
	var events []interleavingEvent
	w.mu.Lock()
	w.pending = slices.DeleteFunc(w.pending, func(t *interleavingWrite) bool {
		if !s.Sees(t.xid) {
			return false
		}
		for _, key := range t.keys {
			events = append(events, interleavingEvent{touched(key, s), []keyedXid{{key, t.xid}}})
		}
		return true
	})
	w.mu.Unlock()
	w.tell(events...)
	linger(longestInterleavingDelay / 2)
	return nil
}

func touched(key string, s version.Snapshot) event.Event {
	return event.Event{Type: "touches.changed", View: "touched", Subject: key, Version: s.Version().String(), Time: time.Now()}
}

// snapshot is one as the relay takes it.
func (w *interleavingWorld) snapshot(ctx context.Context) (version.Snapshot, error) {
	var epoch int64
	var text string
	const query = `SELECT mythic_cache.current_epoch(), pg_current_snapshot()::text`
	if err := w.pool.QueryRow(ctx, query).Scan(&epoch, &text); err != nil {
		return version.Snapshot{}, err
	}
	return version.ParseSnapshot(uint64(epoch), text)
}

// tell puts events into both queues.
func (w *interleavingWorld) tell(events ...interleavingEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.queues {
		w.queues[i] = append(w.queues[i], events...)
	}
	w.history = append(w.history, events...)
	w.history = w.history[max(0, len(w.history)-100):]
}

// take draws a few events, in any order, and some that have been handled before. One that
// is to be late stays in its queue.
func (w *interleavingWorld) take(group int) []interleavingEvent {
	w.mu.Lock()
	defer w.mu.Unlock()
	var taken []interleavingEvent
	queue := w.queues[group]
	for range min(len(queue), 1+rand.IntN(8)) {
		at := rand.IntN(len(queue))
		if oneOf(w.weather.LateEvery) {
			continue
		}
		taken = append(taken, queue[at])
		queue[at] = queue[len(queue)-1]
		queue = queue[:len(queue)-1]
	}
	w.queues[group] = queue
	for range min(len(w.history), 3) {
		if oneOf(w.weather.RepeatEvery) {
			taken = append(taken, w.history[rand.IntN(len(w.history))])
		}
	}
	return taken
}

// work is a call of one group's handler. What it did not do comes again, and so does now and
// then what it did.
func (w *interleavingWorld) work(ctx context.Context, group int) error {
	taken := w.take(group)
	if len(taken) == 0 {
		linger(10 * time.Millisecond)
		return nil
	}
	ctx, cancel := w.mortal(ctx)
	defer cancel()
	done := make([][]keyedXid, len(taken))
	events := make([]event.Event, len(taken))
	for i, e := range taken {
		events[i], done[i] = e.Event, e.done(group, w.oracle)
	}
	errs := w.shelf.handle(ctx, group, events)
	for i, e := range taken {
		if len(errs) > 0 && errs[i] != nil {
			w.again(group, e)
			continue
		}
		w.oracle.apply(done[i])
		w.tally.applied.Add(1)
	}
	return nil
}

// mortal is the context of a call that may be killed in the middle.
func (w *interleavingWorld) mortal(ctx context.Context) (context.Context, context.CancelFunc) {
	if oneOf(w.weather.KillEvery) {
		return context.WithTimeout(ctx, rand.N(4*time.Millisecond))
	}
	return context.WithCancel(ctx)
}

func (w *interleavingWorld) again(group int, e interleavingEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queues[group] = append(w.queues[group], e)
}

// fence tells that the whole view has changed, once in a while, and then of a former
// change once more.
func (w *interleavingWorld) fence(ctx context.Context) error {
	if !pause(ctx, 2*rand.N(w.weather.FenceEvery)) {
		return nil
	}
	s, err := w.snapshot(ctx)
	if err != nil {
		return err
	}
	e := interleavingEvent{touched("", s), w.oracle.writtenSeenBy(s)}
	w.fences = append(w.fences, e)
	w.tell(e, w.fences[rand.IntN(len(w.fences))])
	return nil
}
