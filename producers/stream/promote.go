package stream

import (
	"context"
	"fmt"
	"time"
)

// promotePoll is the longest time between two looks at what is parked. What was
// parked here is looked for when it is due.
const promotePoll = time.Second

// promote brings parked events that are due, until ctx ends.
func (f *feed) promote(ctx context.Context) {
	next := time.Duration(0)
	for f.promoteWait(ctx, next) && f.slots.wait(ctx) && f.gate.wait(ctx) {
		ds, until, err := f.takeDue(ctx)
		if err != nil {
			next = promotePoll
			if ctx.Err() == nil {
				f.o.log.Debug().Err(err).Msg("taking parked events failed")
			}
			continue
		}
		next = until
		if len(ds) > 0 {
			f.admit(ctx, ds)
		}
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

// takeDue takes parked events that are due, and says when to look again.
func (f *feed) takeDue(ctx context.Context) ([]*delivery, time.Duration, error) {
	keys := make([]string, 0, 2*len(f.o.topics))
	for _, topic := range f.o.topics {
		keys = append(keys, f.keys.Parked(f.o.group, topic), f.keys.ParkedEntries(f.o.group, topic))
	}
	// Not ctx: what is taken must be delivered or handed back.
	reply, err := f.take.Run(context.WithoutCancel(ctx), f.client, keys, f.room(), f.o.claimAfter.Milliseconds()).Slice()
	if err != nil {
		return nil, 0, fmt.Errorf("take parked events: %w", err)
	}
	next := promotePoll
	if ms, _ := reply[0].(int64); ms >= 0 {
		next = min(next, time.Duration(ms)*time.Millisecond)
	}
	var ds []*delivery
	for i := 1; i+3 < len(reply); i += 4 {
		topic, _ := reply[i].(int64)
		id, _ := reply[i+1].(string)
		deliveries, _ := reply[i+2].(int64)
		packed, _ := reply[i+3].(string)
		d, err := unpack(f.o.topics[topic-1], id, int(deliveries), []byte(packed))
		d.malformed = err
		ds = append(ds, d)
	}
	return ds, next, nil
}
