package cache

import (
	"context"
	"sync/atomic"
	"time"
)

// deadline is a context whose time can be set anew, as long as it has not passed: a batch
// mostly takes a thousandth of its time, and a context of its own would cost it as many
// allocations as all else of ours. Nothing may outlast a batch that needs its end.
type deadline struct {
	context.Context //nolint:containedctx // it is one; never done

	timer  *time.Timer
	until  atomic.Int64 // Unix nanoseconds
	done   chan struct{}
	passed atomic.Bool
	over   bool // it has passed, or is about to
}

func newDeadline(parent context.Context) *deadline {
	d := &deadline{Context: parent, done: make(chan struct{})}
	d.timer = time.AfterFunc(time.Hour, d.pass)
	d.timer.Stop()
	return d
}

// next begins anew after end, and returns what to use from then on.
func (d *deadline) next(in time.Duration) *deadline {
	if d.over {
		d = newDeadline(d.Context)
	}
	d.until.Store(time.Now().Add(in).UnixNano())
	d.timer.Reset(in)
	return d
}

func (d *deadline) pass() {
	d.passed.Store(true)
	close(d.done)
}

// end lets the time stand still until next.
func (d *deadline) end() { d.over = !d.timer.Stop() }

// Deadline implements context.Context.
func (d *deadline) Deadline() (time.Time, bool) { return time.Unix(0, d.until.Load()), true }

// Done implements context.Context.
func (d *deadline) Done() <-chan struct{} { return d.done }

// Err implements context.Context.
func (d *deadline) Err() error {
	if d.passed.Load() {
		return context.DeadlineExceeded
	}
	return nil
}
