package api

import (
	"context"
	"math/rand/v2"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
)

// How many entries are looked at in one round trip, and how far apart those are asked
// for that are gone: there may be thousands, and others ask too.
const (
	looksAtOnce = 100
	askApart    = 2 * time.Millisecond
)

// look finds what nobody announces, until nobody watches.
func (w *watches) look() {
	tick := time.NewTicker(w.times.mark)
	defer tick.Stop()
	begins := w.waiters.Subscribed()
	var seen marks
	fenced := func() map[string]bool { return seen.changed(w.store, w.views) }
	fenced() // before the first look, or a fence between the two would be missed
	for {
		ready, over := w.ready()
		if over {
			return
		}
		select {
		case <-w.stopping: // over
		case <-ready:
			w.pause(w.lookAt(w.batch()))
		case <-w.wake:
		case <-begins:
			begins = w.waiters.Subscribed()
			w.distrust(func(*topic) bool { return true })
		case now := <-tick.C:
			changed := fenced()
			w.distrust(func(t *topic) bool { return changed[t.on.view] || now.After(t.due) })
		}
	}
}

// ready returns a channel that is closed where something is to be looked at, nil
// where nothing is, and whether nobody watches any more or may: then the caller must
// go.
func (w *watches) ready() (ready <-chan struct{}, over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.topics) == 0 || w.closed {
		w.looking = false
		return nil, true
	}
	if len(w.unseen) == 0 {
		return nil, false
	}
	now := make(chan struct{})
	close(now)
	return now, false
}

// distrust notes which topics are to be looked at.
func (w *watches) distrust(which func(*topic) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.topics {
		if which(t) {
			w.unseen[t] = struct{}{}
		}
	}
}

// batch takes topics of one view that are to be looked at.
func (w *watches) batch() []*topic {
	w.mu.Lock()
	defer w.mu.Unlock()
	var batch []*topic
	for t := range w.unseen {
		if len(batch) == looksAtOnce {
			break
		}
		if len(batch) == 0 || batch[0].view == t.view {
			batch = append(batch, t)
			delete(w.unseen, t)
		}
	}
	return batch
}

// lookAt looks at topics of one view, asks for those that are gone or too old, and
// returns how long to wait before the next look.
func (w *watches) lookAt(batch []*topic) time.Duration {
	if len(batch) == 0 {
		return 0 // they have gone meanwhile
	}
	ctx, cancel := context.WithTimeout(context.Background(), redisTimeout)
	defer cancel()
	keys := make([]string, len(batch))
	for i, t := range batch {
		keys[i] = t.on.key
	}
	results, err := w.store.Look(ctx, batch[0].view, keys)
	if err != nil {
		w.log.Debug().Err(err).Msg("watched entries were not looked at")
		w.later(batch, w.times.mark)
		return w.times.mark
	}
	for i, r := range results {
		if r.Status != cache.Miss {
			w.tell(batch[i], r.Entry, r.Now)
		}
	}
	asks := w.asks(batch, results)
	if len(asks) == 0 {
		return 0
	}
	if _, err := w.publisher.Append(ctx, asks...); err != nil {
		w.log.Debug().Err(err).Msg("watched entries were not asked for")
	}
	return time.Duration(len(asks)) * askApart
}

// asks returns the events that make workers load what is gone or too old, and notes
// when to look again.
func (w *watches) asks(batch []*topic, results []cache.Result) []event.Event {
	now := time.Now()
	var asks []event.Event
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, t := range batch {
		t.due = now.Add(w.times.look/2 + rand.N(w.times.look))
		if results[i].Status == cache.Hit {
			continue
		}
		t.due = now.Add(w.times.ask) // to see what has come of it
		if len(t.watchers) > 0 && now.Sub(t.asked) >= w.times.ask {
			t.asked = now
			asks = append(asks, fillRequest(t.view, t.on.key, nil))
		}
	}
	return asks
}

// later puts off a look.
func (w *watches) later(batch []*topic, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range batch {
		t.due = time.Now().Add(wait)
	}
}

// pause waits, but not when the server stops.
func (w *watches) pause(d time.Duration) {
	if d == 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.stopping:
	}
}

// marks is what was last seen of the views' own keys.
type marks []string

// changed returns the names of the views whose entries may all have been invalidated
// since the last call that got through; all of them at the first.
func (m *marks) changed(store *cache.Store, views []*view.View) map[string]bool {
	ctx, cancel := context.WithTimeout(context.Background(), redisTimeout)
	defer cancel()
	now, err := store.Marks(ctx, views)
	if err != nil {
		return nil // the next call finds it
	}
	changed := map[string]bool{}
	for i, v := range views {
		if *m == nil || (*m)[i] != now[i] {
			changed[v.Name] = true
		}
	}
	*m = now
	return changed
}
