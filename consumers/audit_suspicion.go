package consumers

import (
	"context"
	"fmt"
	"slices"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/stream"
)

// suspicion is an entry that differed from what SQL says, and is looked at again
// until it is known why:
//
//   - behind: it was dropped or filled anew, so a change was on its way;
//   - wrong: it is still there, although nothing was on its way for so long that a
//     relay has had several heartbeats to notice DDL, and has said since that it leads, the
//     outbox then held nothing that it has not seen but what was in the streams, and the
//     group that drops entries has done all that was in them.
//
// Where Redis is restarted in between, what it lost comes again before the entry
// counts as one that somebody answers for.
type suspicion struct {
	Finding

	view   *view.View
	sight  sight
	since  time.Time // when it was first seen to differ
	steady time.Time // since when nothing waits to be sent that could mend it; zero: something does
	marked time.Time // when that had lasted long enough: what is in the streams by then is to be done; zero: it has not
	unled  bool      // no relay has been at work for as long as that takes, as far as is known
	open   []string  // topics in which the group had something to do at that moment, as far as is known
	due    time.Time // when it is to be looked at again
	loaded time.Time // when it last was, with a load
	asks   bool      // Redis alone did not tell; it is to be looked at with a load
}

// Between two looks at a suspect. Most of those that are behind no longer are after some
// milliseconds, so what is young is looked at often; what waits for long, ever less.
const (
	againSoonest = 10 * time.Millisecond
	againLatest  = 10 * time.Second // while a change is on its way
	againSteady  = time.Second      // while nothing is
)

func (x *examiner) suspect(v *view.View, key string, s sight) *suspicion {
	now := time.Now()
	return &suspicion{
		Finding: Finding{
			View: v.Name, Key: key, Verdict: Behind, Why: s.why,
			Entry: s.Version, Truth: s.truth.Version,
		},
		view: v, sight: s, since: now, due: now.Add(againSoonest),
	}
}

// glance looks at an entry under suspicion in Redis alone, and reports whether that is
// enough to say that it was behind.
func (x *examiner) glance(ctx context.Context, s *suspicion) (in cache.Inspection, final bool, err error) {
	s.due = time.Now().Add(s.pause())
	if in, err = x.store.Inspect(ctx, s.view, s.Key); err != nil {
		return in, false, fmt.Errorf("audit %s: %w", s.View, err)
	}
	state := servable(in)
	return in, state == gone || state == same && !s.sight.is(in.Entry), nil
}

// pause is how long nobody need look.
func (s *suspicion) pause() time.Duration {
	most := againLatest
	if !s.steady.IsZero() {
		most = againSteady
	}
	return min(max(time.Since(s.since), againSoonest), most)
}

// again looks once more at an entry under suspicion, with one load, and reports whether
// its verdict is final.
func (x *examiner) again(ctx context.Context, s *suspicion) (final bool, err error) {
	in, final, err := x.glance(ctx, s)
	if err != nil || final {
		return final, err
	}
	if servable(in) == unsure {
		s.unsettle()
		return false, nil
	}
	now, err := x.lookClosely(ctx, s.view, in.Entry)
	if err != nil {
		return false, err
	}
	switch {
	case now.state == same:
		return true, nil
	case now.state == unsure, now.settled.IsZero():
		s.unsettle()
		return false, nil
	}
	s.sight, s.Why, s.Truth = now, now.why, now.truth.Version
	if settled, err := x.settled(ctx, s); err != nil || !settled {
		return false, err
	}
	return x.still(ctx, s)
}

// settled reports whether whatever could mend the entry is over.
func (x *examiner) settled(ctx context.Context, s *suspicion) (bool, error) {
	if s.steady.IsZero() {
		s.steady = s.sight.settled
	}
	if s.marked.IsZero() {
		if noticed, err := x.noticed(ctx, s); err != nil || !noticed {
			return false, err
		}
		// Not the moment at which it became steady: what a heartbeat found since is in the
		// streams later.
		s.marked, s.open = time.Now(), nil
		for _, m := range s.view.Tables {
			s.open = append(s.open, m.Topic())
		}
	}
	err := x.caughtUp(ctx, s)
	return err == nil && len(s.open) == 0, err
}

// noticed reports whether a relay has had the time to notice what no trigger saw. That
// one led a moment ago says nothing: it may have died before the change, and the next
// one is yet to look at the tables.
func (x *examiner) noticed(ctx context.Context, s *suspicion) (bool, error) {
	by := s.steady.Add(x.settle)
	if s.sight.settled.Before(by) {
		return false, nil
	}
	if x.road.Leads == nil {
		return true, nil
	}
	led, err := x.road.Leads(ctx, by)
	s.unled = !led
	return led, err
}

// unsettle begins anew: something may be on its way.
func (s *suspicion) unsettle() { s.steady, s.marked = time.Time{}, time.Time{} }

// caughtUp closes the topics in which the group has done what was there at the moment
// that the suspicion has marked. Under load something is always to be done; then that the
// oldest of it is younger says the same. Redis's own lag is not asked: it goes wrong
// when entries are deleted.
func (x *examiner) caughtUp(ctx context.Context, s *suspicion) error {
	if x.road.Group == "" {
		s.open = nil // nothing is known of streams
	}
	if len(s.open) == 0 {
		return nil
	}
	asked := time.Now() // before Redis tells ages, so that none seems younger than it is
	groups, err := stream.Groups(ctx, x.store.Client(), x.road.Keys, s.open)
	if err != nil {
		return fmt.Errorf("audit %s: %w", s.View, err)
	}
	var open []string
	for _, topic := range s.open {
		at := slices.IndexFunc(groups, func(g stream.GroupState) bool { return g.Group == x.road.Group && g.Topic == topic })
		if at < 0 {
			// Without its stream the group has nothing to do; without the group, everything.
			n, err := x.store.Client().Exists(ctx, x.road.Keys.Topic(topic)).Result()
			if err != nil {
				return fmt.Errorf("audit %s: %w", s.View, err)
			}
			if n > 0 {
				open = append(open, topic)
			}
			continue
		}
		g := groups[at]
		if g.Parked > 0 || g.Oldest != "" && g.OldestPending >= asked.Sub(s.marked) {
			open = append(open, topic)
		}
	}
	s.open = open
	return nil
}

// still has a last look at Redis alone. The entry that is there now was there while
// all was done that could have dropped it.
func (x *examiner) still(ctx context.Context, s *suspicion) (final bool, err error) {
	in, err := x.store.Inspect(ctx, s.view, s.Key)
	if err != nil {
		return false, fmt.Errorf("audit %s: %w", s.View, err)
	}
	switch {
	case servable(in) == unsure:
		s.unsettle()
		return false, nil
	case servable(in) == same && s.sight.is(in.Entry):
		s.Verdict = Wrong
	}
	return true, nil
}

// repair drops an entry that is wrong. It has no version to be compared by. A fence keeps
// the version of what it has dropped, so of an entry that has seen more than there has been
// none is left: it would keep out every fill. Whoever holds a lease has lost it with the key.
func (x *examiner) repair(ctx context.Context, s *suspicion) error {
	if _, err := x.store.Invalidate(ctx, []cache.Change{{View: s.view, Key: s.Key}}); err != nil {
		return fmt.Errorf("repair %s: %w", s.View, err)
	}
	if s.Truth.Compare(s.Entry) >= 0 {
		return nil
	}
	in, err := x.store.Inspect(ctx, s.view, s.Key)
	if err == nil && in.Version == s.Entry {
		err = x.store.Client().Unlink(ctx, in.Name).Err()
	}
	if err != nil {
		return fmt.Errorf("repair %s: %w", s.View, err)
	}
	return nil
}
