package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// outcome is how a delivery went; without an error it is done.
type outcome struct {
	d   *delivery
	err error
}

// parkMost bounds the delay of a parked event.
const parkMost = 5 * time.Minute

// laterLeast is how soon an event comes back that has to wait for its turn; spread up
// to twice as late.
const laterLeast = 500 * time.Millisecond

// A dead letter has its event's own fields and these.
const (
	deadReason     = "dead.reason"
	deadGroup      = "dead.group"
	deadTopic      = "dead.topic"
	deadEntry      = "dead.entry"
	deadDeliveries = "dead.deliveries"
	deadFirst      = "dead.first"
	deadLast       = "dead.last"
	deadParcel     = "dead.parcel" // in place of more fields than a script can pass on
)

// scriptFields is how many names and values a script can pass on; Lua stops at
// some 8,000.
const scriptFields = 4000

// settle writes how deliveries went: done ones are acknowledged, paused and failed
// ones parked, spent ones buried. Afterwards nothing of them is in flight here.
// It tries until it is written or ctx ends; what is not written then stays pending
// and comes again.
func (f *feed) settle(ctx context.Context, outcomes []outcome) {
	f.flight.settle(outcomes)
	f.reopen(outcomes)
	var back []*delivery
	ops := f.acknowledge(outcomes)
	now := time.Now()
	var dead []outcome
	for _, o := range outcomes {
		switch {
		case o.err == nil:
		case errors.Is(o.err, errHandedBack):
			back = append(back, o.d)
		default:
			ops = append(ops, f.fail(o, now))
			if f.spent(o) {
				dead = append(dead, o)
			}
		}
	}
	if len(dead) > 0 { // one line for all, since bad events come in floods
		first := dead[0]
		f.o.log.Warn().Int("events", len(dead)).Str("topic", first.d.topic).Str("entry", first.d.id).
			Str("type", first.d.kind).Int("deliveries", first.d.deliveries).AnErr("first", first.err).
			Msg("events became dead letters")
	}
	if len(back) > 0 {
		f.handBack(ctx, back)
	}
	refused := 0
	for failures := 1; len(ops) > 0; failures++ {
		var err error
		ops, err = f.write(ctx, ops)
		if err == nil {
			break
		}
		if _, ok := errors.AsType[redis.Error](err); ok {
			refused++
		}
		// A Redis that is away comes back; one that keeps refusing must not hold
		// the consumer up. (It refuses while out of memory: acks go through then,
		// and what could not be parked is claimed later.)
		if refused == 5 || !pause(ctx, backoff(50*time.Millisecond, time.Second, failures)) {
			f.o.log.Warn().Err(err).Int("entries", len(ops)).Msg("cannot settle entries, they will come again")
			break
		}
	}
	parked := false
	for _, o := range outcomes {
		f.flight.remove(o.d)
		parked = parked || o.err != nil
	}
	if !parked {
		return
	}
	select {
	case f.parked <- struct{}{}:
	default:
	}
}

// reopen opens the gate after any answer that is not a pause, and closes it where
// there are pauses alone. What was handed back was not answered, and what has to wait
// for its turn says nothing of the others.
func (f *feed) reopen(outcomes []outcome) {
	paused, done := 0, 0
	for _, o := range outcomes {
		switch {
		case errors.Is(o.err, errHandedBack), errors.Is(o.err, ErrLater):
		case errors.Is(o.err, ErrPause):
			paused++
		default:
			done++
		}
	}
	switch {
	case done > 0 && paused == 0:
		f.gate.open()
	case done == 0 && paused > 0:
		f.gate.close(time.Now())
	}
}

// op is one write of a settlement.
type op func(ctx context.Context, pipe redis.Pipeliner) redis.Cmder

// write sends ops in one pipeline and returns those that failed.
func (f *feed) write(ctx context.Context, ops []op) (failed []op, err error) {
	pipe := f.client.Pipeline()
	cmds := make([]redis.Cmder, len(ops))
	for i, op := range ops {
		cmds[i] = op(ctx, pipe)
	}
	execute(ctx, pipe)
	for i, cmd := range cmds {
		if cmd.Err() != nil {
			failed, err = append(failed, ops[i]), cmd.Err()
		}
	}
	return failed, err
}

// acknowledge settles what is done.
func (f *feed) acknowledge(outcomes []outcome) []op {
	done := make([]*delivery, 0, len(outcomes))
	for _, o := range outcomes {
		if o.err == nil {
			done = append(done, o.d)
		}
	}
	var ops []op
	for topic, ids := range byTopic(done, false) {
		f.o.metrics.settled(f.o.group, topic, "done", len(ids))
		ops = append(ops, func(ctx context.Context, pipe redis.Pipeliner) redis.Cmder {
			return pipe.XAck(ctx, f.keys.Topic(topic), f.o.group, ids...)
		})
	}
	for topic, ids := range byTopic(done, true) {
		f.o.metrics.settled(f.o.group, topic, "done", len(ids))
		names, counts := make([]any, len(ids)), make([]string, len(ids))
		for i, id := range ids {
			names[i], counts[i] = id, id+" n"
		}
		// The entries first: a parked id without an entry is dropped when it is due.
		ops = append(ops, func(ctx context.Context, pipe redis.Pipeliner) redis.Cmder {
			pipe.HDel(ctx, f.keys.ParkedEntries(f.o.group, topic), slices.Concat(ids, counts)...)
			return pipe.ZRem(ctx, f.keys.Parked(f.o.group, topic), names...)
		})
	}
	return ops
}

// spent reports whether an outcome is the last of its event.
func (f *feed) spent(o outcome) bool {
	return !errors.Is(o.err, ErrPause) && (final(o.err) || o.d.deliveries >= f.o.maxDeliveries)
}

// fail parks or buries a delivery that failed.
func (f *feed) fail(o outcome, now time.Time) op {
	d, first := o.d, o.d.first
	if first.IsZero() {
		first = now
	}
	log := f.o.log.With().Str("topic", d.topic).Str("entry", d.id).Str("type", d.kind).Int("deliveries", d.deliveries).Logger()
	switch {
	case errors.Is(o.err, ErrPause):
		log.Debug().Err(o.err).Msg("event paused")
		f.o.metrics.settled(f.o.group, d.topic, "paused", 1)
		delay := max(time.Until(f.gate.closedUntil()), pauseLeast)
		if errors.Is(o.err, ErrLater) {
			delay = backIn(o.err)
		}
		return f.park(d, first, o.err, delay, d.deliveries-1, answered)
	case f.spent(o):
		log.Debug().Err(o.err).Msg("event is a dead letter")
		f.o.metrics.settled(f.o.group, d.topic, "dead", 1)
		return f.bury(d, first, now, o.err)
	case errors.Is(o.err, errHangs): // it or one of its batch: each comes alone from now on
		log.Debug().Err(o.err).Msg("event hangs")
		f.o.metrics.settled(f.o.group, d.topic, "retried", 1)
		return f.park(d, first, o.err, backoff(f.o.backoff, parkMost, d.deliveries), d.deliveries, hung)
	default:
		log.Debug().Err(o.err).Msg("event failed")
		f.o.metrics.settled(f.o.group, d.topic, "retried", 1)
		return f.park(d, first, o.err, backoff(f.o.backoff, parkMost, d.deliveries), d.deliveries, answered)
	}
}

// What the due time of a parked event says of its last delivery; see take.lua.
const (
	answered = ""
	hung     = ".25"
)

func (f *feed) park(d *delivery, first time.Time, reason error, delay time.Duration, deliveries int, mark string) op {
	keys := []string{f.keys.Topic(d.topic), f.keys.Parked(f.o.group, d.topic), f.keys.ParkedEntries(f.o.group, d.topic)}
	packed := d.pack(first, reasonOf(reason))
	return func(ctx context.Context, pipe redis.Pipeliner) redis.Cmder {
		return pipe.Eval(ctx, parkScript, keys, f.o.group, d.id, delay.Milliseconds(), deliveries, packed, mark)
	}
}

func (f *feed) bury(d *delivery, first, last time.Time, reason error) op {
	keys := []string{
		f.keys.Topic(d.topic), f.keys.Dead(),
		f.keys.Parked(f.o.group, d.topic), f.keys.ParkedEntries(f.o.group, d.topic),
	}
	args := []any{f.o.group, d.id}
	kept := d.fields
	if instead, ok := errors.AsType[*inSteadError](reason); ok {
		kept = instead.fields
	}
	if len(kept) <= scriptFields {
		for _, text := range kept {
			args = append(args, text)
		}
	} else {
		args = append(args, deadParcel, d.pack(first, reasonOf(reason)))
	}
	args = append(args,
		deadReason, reasonOf(reason), deadGroup, f.o.group, deadTopic, d.topic, deadEntry, d.id,
		deadDeliveries, fmt.Sprint(d.deliveries),
		deadFirst, first.UTC().Format(time.RFC3339Nano), deadLast, last.UTC().Format(time.RFC3339Nano))
	return func(ctx context.Context, pipe redis.Pipeliner) redis.Cmder {
		return pipe.Eval(ctx, buryScript, keys, args...)
	}
}
