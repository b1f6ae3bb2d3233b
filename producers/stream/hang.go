package stream

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// lingerFor is how long a handler may go on after its context has ended.
const lingerFor = time.Second

// errHangs is the failure of what a handler was given and never answered.
var errHangs = errors.New("handler does not return")

// lostCalls are closed, each when a call that was given up has returned after all.
type lostCalls []<-chan struct{}

// gaveUp is how a delivery ends whose handler did not return: where it was told to
// end by a shutdown, that is not the event's fault. One that hangs twice, and alone,
// is not tried again: each time takes a place for good.
func (f *feed) gaveUp(ctx context.Context, d *delivery, alone bool) error {
	if ctx.Err() != nil {
		return errHandedBack
	}
	err := fmt.Errorf("%w within %s", errHangs, f.o.timeout)
	if alone && d.deliveries > 1 {
		err = fmt.Errorf("%w: %w", ErrReject, err)
	}
	return err
}

// giveWhenOver gives a slot back, once the calls that hang in it have returned: they
// take memory and may hold a lock, so that more of them must not be begun.
func (f *feed) giveWhenOver(lost lostCalls) {
	if len(lost) == 0 {
		f.slots.give()
		return
	}
	f.lose()
	go func() {
		for _, over := range lost {
			<-over
		}
		f.regain()
	}()
}

// lose notes that a slot is held by what was given up.
func (f *feed) lose() {
	n := f.lost.Add(1)
	f.o.metrics.hangs(f.o.group, 1)
	f.o.log.Error().Strs("topics", f.o.topics).Dur("after", f.o.timeout).Int64("hanging", n).Int("of", cap(f.slots)).
		Msg("handler does not return, its events are tried again elsewhere")
}

// leaveBehind forgets slots that are lost for good, since nobody will want them.
func (f *feed) leaveBehind(n int) {
	f.lost.Add(-int64(n))
	f.o.metrics.hangs(f.o.group, -float64(n))
}

// regain gives back a slot that was lost.
func (f *feed) regain() {
	f.lost.Add(-1)
	f.o.metrics.hangs(f.o.group, -1)
	f.slots.give()
}
