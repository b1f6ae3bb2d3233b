package stream

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A consumer that lives shows it by touching what it has in flight, every third
// of ClaimAfter. Whatever nobody touched for ClaimAfter belongs to a consumer that
// is gone, or got lost on its way to this one; another takes it over.

// idleConsumer is how long a consumer's name stays in a group after its end.
const idleConsumer = time.Hour

func (f *feed) beat() time.Duration { return max(f.o.claimAfter/3, time.Millisecond) }

// keepAlive touches what is in flight until ctx ends.
func (f *feed) keepAlive(ctx context.Context) {
	for pause(ctx, f.beat()/2) {
		now := time.Now()
		stale := f.flight.stale(now.Add(-f.beat() / 2))
		if len(stale) == 0 {
			continue
		}
		if err := f.touch(ctx, stale, f.o.claimAfter); err != nil {
			f.o.log.Debug().Err(err).Msg("touching what is in flight failed")
			continue
		}
		f.flight.touch(stale, now)
	}
}

// touch shows that deliveries live: parked ones are due after the lease only.
func (f *feed) touch(ctx context.Context, ds []*delivery, lease time.Duration) error {
	pipe := f.client.Pipeline()
	for topic, ids := range byTopic(ds, false) {
		pipe.XClaimJustID(ctx, &redis.XClaimArgs{Stream: f.keys.Topic(topic), Group: f.o.group, Consumer: f.o.name, Messages: ids})
	}
	for topic, ids := range byTopic(ds, true) {
		f.lease(ctx, pipe, topic, ids, lease, 0)
	}
	_, err := pipe.Exec(ctx)
	return err
}

func (f *feed) lease(ctx context.Context, pipe redis.Pipeliner, topic string, ids []string, lease time.Duration, deliveries int) {
	args := []any{lease.Milliseconds(), deliveries}
	for _, id := range ids {
		args = append(args, id)
	}
	pipe.Eval(ctx, leaseScript, []string{f.keys.Parked(f.o.group, topic), f.keys.ParkedEntries(f.o.group, topic)}, args...)
}

// byTopic sorts the ids of deliveries that are, or are not, parked.
func byTopic(ds []*delivery, parked bool) map[string][]string {
	ids := map[string][]string{}
	for _, d := range ds {
		if d.parked == parked {
			ids[d.topic] = append(ids[d.topic], d.id)
		}
	}
	return ids
}

// claim takes over what nobody touches, until ctx ends, and now and then takes
// the names of those who are gone out of the group.
func (f *feed) claim(ctx context.Context) {
	swept := time.Time{}
	for pause(ctx, f.beat()) && f.slots.wait(ctx) && f.gate.wait(ctx) {
		topics, err := f.orphaned(ctx)
		for _, topic := range topics {
			if err != nil || ctx.Err() != nil {
				break
			}
			err = f.claimTopic(ctx, topic, claims{idle: f.o.claimAfter})
		}
		if err == nil && time.Since(swept) > idleConsumer {
			swept = time.Now()
			err = f.sweep(ctx)
		}
		if err != nil && ctx.Err() == nil {
			f.o.log.Debug().Err(err).Msg("claiming failed")
		}
	}
}

// orphaned returns the topics in which something is untouched.
func (f *feed) orphaned(ctx context.Context) ([]string, error) {
	pipe := f.client.Pipeline()
	cmds := make([]*redis.XPendingExtCmd, len(f.o.topics))
	for i, stream := range f.streams() {
		cmds[i] = pipe.XPendingExt(ctx, &redis.XPendingExtArgs{
			Stream: stream, Group: f.o.group, Idle: f.o.claimAfter, Start: "-", End: "+", Count: 1,
		})
	}
	execute(ctx, pipe)
	var topics []string
	for i, cmd := range cmds {
		switch found, err := cmd.Result(); {
		case err != nil && !vanished(err):
			return nil, fmt.Errorf("look for orphans in %s: %w", f.o.topics[i], err)
		case len(found) > 0:
			topics = append(topics, f.o.topics[i])
		}
	}
	return topics, nil
}

// claims say what is to be taken over.
type claims struct {
	consumer string        // of this one alone; empty: of any
	idle     time.Duration // untouched for so long
	lost     bool          // on their way here: nobody has had them
}

// claimTopic takes over what is pending in a topic and not in flight here.
//
// What has been delivered half as often as an event may be, and never answered, may
// be what kills those who handle it. Such entries are taken over last, one after the
// other: in one batch, each death would count as a delivery of all of them.
func (f *feed) claimTopic(ctx context.Context, topic string, c claims) (err error) {
	stream, start := f.keys.Topic(topic), "-"
	size := newSizing(f.o.batchSize, f.claimFailed.Load())
	defer func() { f.claimFailed.Store(err != nil) }()
	var suspects []redis.XPendingExt
	for f.slots.wait(ctx) {
		page := min(size.count(), f.room())
		pending, err := f.client.XPendingExt(ctx, &redis.XPendingExtArgs{
			Stream: stream, Group: f.o.group, Idle: c.idle, Start: start, End: "+",
			Count: int64(page), Consumer: c.consumer,
		}).Result()
		if err != nil {
			return fmt.Errorf("look for pending entries of %s: %w", topic, err)
		}
		var wanted []redis.XPendingExt
		for _, p := range pending {
			switch {
			case f.flight.has(topic, p.ID):
			case !c.lost && int(p.RetryCount) >= f.suspicious():
				suspects = append(suspects, p)
			default:
				wanted = append(wanted, p)
			}
		}
		ds, err := f.takeOver(ctx, topic, c, wanted)
		if err != nil {
			return err
		}
		size.note(ds, len(wanted))
		if len(pending) < page {
			return f.takeOverAlone(ctx, topic, c, suspects)
		}
		start = "(" + pending[len(pending)-1].ID
	}
	return ctx.Err()
}

// suspicious is how many deliveries without an answer make a suspect.
func (f *feed) suspicious() int { return max(f.o.maxDeliveries/2, 2) }

// takeOver claims entries and delivers those that it got.
func (f *feed) takeOver(ctx context.Context, topic string, c claims, wanted []redis.XPendingExt) ([]*delivery, error) {
	byCount := map[int][]any{}
	for _, p := range wanted {
		n := int(p.RetryCount)
		if !c.lost {
			n++
		}
		byCount[n] = append(byCount[n], p.ID)
	}
	var all []*delivery
	for _, deliveries := range slices.Sorted(maps.Keys(byCount)) {
		ds, err := f.xclaim(ctx, topic, c.idle, byCount[deliveries], deliveries)
		if err != nil {
			return all, fmt.Errorf("claim entries of %s: %w", topic, err)
		}
		all = append(all, ds...)
		if len(ds) > 0 {
			f.o.metrics.claimed(f.o.group, topic, len(ds))
			f.o.log.Info().Str("topic", topic).Int("entries", len(ds)).Msg("took over pending entries")
			f.admit(ctx, slices.Clone(ds))
		}
	}
	return all, nil
}

// xclaim claims entries, which have then been delivered so often: a number, so that a
// claim whose answer gets lost and is repeated counts once. Whoever else claims them
// at this moment makes them young, so that one of us gets each.
func (f *feed) xclaim(ctx context.Context, topic string, idle time.Duration, ids []any, deliveries int) ([]*delivery, error) {
	args := append([]any{"XCLAIM", f.keys.Topic(topic), f.o.group, f.o.name, idle.Milliseconds()}, ids...)
	args = append(args, "RETRYCOUNT", deliveries)
	var a answer
	// Not ctx: what is claimed must be handed back.
	ctx = context.WithoutCancel(ctx)
	if err := f.client.Process(ctx, redis.NewRawWriteToCmd(ctx, &a, args...)); err != nil {
		return nil, err
	}
	var ds []*delivery
	err := readEntries(a.bytes, func(id string, values fields) {
		ds = append(ds, &delivery{topic: topic, id: id, fields: values, deliveries: deliveries, over: make(chan struct{})})
	})
	return ds, err
}

// takeOverAlone takes over one entry after the other, each when the one before it
// is no longer in flight. A slow handler holds that up for a while only: what kills
// does so soon.
func (f *feed) takeOverAlone(ctx context.Context, topic string, c claims, suspects []redis.XPendingExt) error {
	for _, p := range suspects {
		if !f.slots.wait(ctx) || !f.gate.wait(ctx) {
			return ctx.Err()
		}
		ds, err := f.takeOver(ctx, topic, c, []redis.XPendingExt{p})
		if err != nil {
			return err
		}
		f.awaitOver(ctx, ds, f.o.claimAfter)
	}
	return ctx.Err()
}

// sweep takes consumers out of the group that are long gone.
func (f *feed) sweep(ctx context.Context) error {
	var gone []any
	for _, stream := range f.streams() {
		consumers, err := f.client.XInfoConsumers(ctx, stream, f.o.group).Result()
		if err != nil {
			return fmt.Errorf("look for idle consumers: %w", err)
		}
		for _, c := range consumers {
			if c.Idle > idleConsumer && c.Pending == 0 && c.Name != f.o.name {
				gone = append(gone, c.Name)
			}
		}
	}
	if len(gone) > 0 {
		f.dismiss(ctx, gone...)
	}
	return nil
}

// vanished reports whether a stream or group is no longer there; the next read
// makes it again.
func vanished(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "NOGROUP") }

// handBack gives up deliveries that no handler has seen: the next consumer that
// looks for orphans finds them old, and none of them counts as delivered.
func (f *feed) handBack(ctx context.Context, ds []*delivery) {
	pipe := f.client.Pipeline()
	for _, d := range ds {
		if d.parked {
			continue
		}
		pipe.Do(ctx, "XCLAIM", f.keys.Topic(d.topic), f.o.group, f.o.name, 0, d.id,
			"IDLE", idleConsumer.Milliseconds(), "RETRYCOUNT", d.deliveries-1, "JUSTID")
	}
	for topic, ids := range byTopic(ds, true) {
		f.lease(ctx, pipe, topic, ids, 0, -1)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		f.o.log.Debug().Err(err).Msg("handing back failed") // then they are claimed after ClaimAfter
	}
	for _, d := range ds {
		f.flight.remove(d)
	}
}
