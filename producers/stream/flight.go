package stream

import (
	"context"
	"sync"
	"time"
)

// ref names a stream entry.
type ref struct{ topic, id string }

// flight knows the entries that this process has read and not settled.
type flight struct {
	mu sync.Mutex
	m  map[ref]*delivery
}

func newFlight() *flight { return &flight{m: map[ref]*delivery{}} }

// add takes up what is not in flight yet and returns it. What is being settled may
// come again before its settlement is known here to be written:
//
//  1. settle parks an event, due in a millisecond; Redis does so.
//  2. promote takes it, before the answer to 1 has been read.
//  3. It is this delivery that counts, and the remove of the one before must not
//     take it for its own.
func (f *flight) add(ds []*delivery) []*delivery {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh := ds[:0]
	for _, d := range ds {
		if known := f.m[d.ref()]; known != nil && !known.settling {
			d.end()
			continue
		}
		d.touched = now
		f.m[d.ref()] = d
		fresh = append(fresh, d)
	}
	return fresh
}

func (f *flight) remove(d *delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d.end()
	if f.m[d.ref()] == d {
		delete(f.m, d.ref())
	}
}

// settle notes that the answers of deliveries are about to be written.
func (f *flight) settle(outcomes []outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range outcomes {
		o.d.settling = true
	}
}

func (f *flight) has(topic, id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.m[ref{topic: topic, id: id}]
	return ok
}

func (f *flight) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.m)
}

// stale returns what had no sign of life since then.
func (f *flight) stale(since time.Time) []*delivery {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ds []*delivery
	for _, d := range f.m {
		if d.parked && d.settling {
			continue // it may be parked again by now, with a due time of its own
		}
		if d.touched.Before(since) {
			ds = append(ds, d)
		}
	}
	return ds
}

// touch notes a sign of life.
func (f *flight) touch(ds []*delivery, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range ds {
		d.touched = at
	}
}

// slots bound what is worked on at a time.
type slots chan struct{}

// take waits for a slot, and is false once ctx has ended, even where one is free.
func (s slots) take(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case s <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s slots) give() { <-s }

// wait waits until a slot is free, without taking it: who blocks in a read must
// not hold up those who have something to deliver.
func (s slots) wait(ctx context.Context) bool {
	if !s.take(ctx) {
		return false
	}
	s.give()
	return true
}

// free is how many there are to be had.
func (s slots) free() int { return max(cap(s)-len(s), 1) }

// gate holds back reads while a handler says that it is paused.
type gate struct {
	mu     sync.Mutex
	until  time.Time
	streak int
}

// pauseLeast and pauseMost bound the time between two tries of a paused handler.
const (
	pauseLeast = 100 * time.Millisecond
	pauseMost  = 5 * time.Second
)

// close holds reads back for a while, longer each time, and returns when it is
// over. Calls that fail while the gate is closed already count as one.
func (g *gate) close(now time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Before(g.until) {
		return g.until
	}
	pause := min(pauseLeast<<min(g.streak, 10), pauseMost)
	g.streak++
	g.until = now.Add(pause)
	return g.until
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.streak, g.until = 0, time.Time{}
}

// closedUntil is when the gate opens by itself.
func (g *gate) closedUntil() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.until
}

// wait waits until the gate is open, and is false once ctx has ended.
func (g *gate) wait(ctx context.Context) bool {
	for {
		g.mu.Lock()
		left := time.Until(g.until)
		g.mu.Unlock()
		if left <= 0 {
			return ctx.Err() == nil
		}
		if !pause(ctx, left) {
			return false
		}
	}
}

// pause sleeps, and is false once ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
