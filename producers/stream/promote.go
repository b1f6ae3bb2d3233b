package stream

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// promotePoll is the longest time between two looks at what is parked. What was
// parked here is looked for when it is due.
const promotePoll = time.Second

// promote brings parked events that are due, until ctx ends.
func (f *feed) promote(ctx context.Context) {
	next := time.Duration(0)
	var out []*delivery // what was brought and may still be in flight
	for f.promoteWait(ctx, next) && f.slots.wait(ctx) && f.gate.wait(ctx) {
		due, err := f.takeDue(ctx)
		if err != nil {
			next = promotePoll
			if ctx.Err() == nil {
				f.o.log.Debug().Err(err).Msg("taking parked events failed")
			}
			continue
		}
		next = due.next
		if len(due.ds) == 0 {
			continue
		}
		out = append(slices.DeleteFunc(out, (*delivery).isOver), due.ds...)
		if due.suspect {
			f.promoteAlone(ctx, due.ds[0], out)
			continue
		}
		f.admit(ctx, due.ds)
	}
}

// promoteAlone brings one event that may kill this process: when what was brought
// before is no longer in flight, and with nothing brought beside it. A slow handler
// holds that up for a while only: what kills does so soon.
func (f *feed) promoteAlone(ctx context.Context, suspect *delivery, out []*delivery) {
	f.awaitOver(ctx, out[:len(out)-1], f.o.claimAfter/2) // the lease runs
	f.admit(ctx, []*delivery{suspect})
	f.awaitOver(ctx, []*delivery{suspect}, f.o.claimAfter)
}

// awaitOver waits, so long at most, until none of the deliveries is in flight.
func (f *feed) awaitOver(ctx context.Context, ds []*delivery, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for _, d := range ds {
		select {
		case <-d.over:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (d *delivery) isOver() bool {
	select {
	case <-d.over:
		return true
	default:
		return false
	}
}

// promoteWait waits for the next due time, or for something to be parked here.
func (f *feed) promoteWait(ctx context.Context, next time.Duration) bool {
	timer := time.NewTimer(next)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.parked:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// due is what a take brought.
type due struct {
	ds      []*delivery
	suspect bool          // it is one, which may kill who handles it
	next    time.Duration // when to look again
}

// takeDue takes parked events that are due.
func (f *feed) takeDue(ctx context.Context) (due, error) {
	keys := make([]string, 0, 2*len(f.o.topics))
	for _, topic := range f.o.topics {
		keys = append(keys, f.keys.Parked(f.o.group, topic), f.keys.ParkedEntries(f.o.group, topic))
	}
	// Not ctx: what is taken must be delivered or handed back.
	reply, err := f.take.Run(context.WithoutCancel(ctx), f.client, keys,
		f.room(), f.o.claimAfter.Milliseconds(), f.suspicious(), readBytes).Slice()
	if err != nil {
		return due{}, fmt.Errorf("take parked events: %w", err)
	}
	taken := due{next: promotePoll}
	if ms, _ := reply[0].(int64); ms >= 0 {
		taken.next = min(taken.next, time.Duration(ms)*time.Millisecond)
	}
	taken.suspect = reply[1] == int64(1)
	for i := 2; i+3 < len(reply); i += 4 {
		topic, _ := reply[i].(int64)
		id, _ := reply[i+1].(string)
		deliveries, _ := reply[i+2].(int64)
		packed, _ := reply[i+3].(string)
		d, err := unpack(f.o.topics[topic-1], id, int(deliveries), []byte(packed))
		d.malformed = err
		d.over = make(chan struct{})
		taken.ds = append(taken.ds, d)
	}
	taken.suspect = taken.suspect && len(taken.ds) == 1 // its entry may be gone
	return taken, nil
}
