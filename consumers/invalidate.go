package consumers

import (
	"context"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// InvalidatorOptions are the choices of an Invalidator. The zero value is usable.
type InvalidatorOptions struct {
	Log     zerolog.Logger
	Metrics prometheus.Registerer // nil: none
}

// Invalidator drops the entries that events say have changed. It needs Redis and
// nothing else. Handle is the handler of group "invalidate".
type Invalidator struct {
	store     *cache.Store
	views     *view.Set
	log       zerolog.Logger
	staleness *staleness
}

// NewInvalidator makes an invalidator of the views' entries in store.
func NewInvalidator(store *cache.Store, views *view.Set, o InvalidatorOptions) (*Invalidator, error) {
	s, err := newStaleness(o.Metrics)
	if err != nil {
		return nil, err
	}
	return &Invalidator{store: store, views: views, log: o.Log, staleness: s}, nil
}

// Staleness returns how long it lately took from the writing of a row to the end
// of the entry that showed the row as it was.
func (i *Invalidator) Staleness() *cache.Quantiles { return i.staleness.quantiles(time.Now()) }

// change is one thing to do for the messages of those places.
type change struct {
	cache.Change
	places []int
}

// changes are what a batch asks for, each key and view once.
type changes struct {
	keys   map[keyed]*change
	fences map[string]*change
	order  []*change // keys, in the order of their first event
}

// keyed tells apart what can be merged: of two snapshots of a key the newer one
// says all, but a change without one removes whatever is there, which no
// snapshot says.
type keyed struct {
	view, key string
	versioned bool
}

// Handle applies a batch. Every event may come again: what has a version is
// compared with it, and removing once more what an app's event names costs a
// load and no truth.
func (i *Invalidator) Handle(ctx context.Context, messages []*message.Message) []error {
	b := newBatch(messages)
	all := &changes{keys: make(map[keyed]*change), fences: make(map[string]*change)}
	written := make([]time.Time, len(messages))
	b.events(func(place int, e event.Event) {
		written[place] = e.Time
		b.fail(i.collect(all, place, e), place)
	})
	for _, fence := range all.fences {
		rose, err := i.store.RaiseFence(ctx, fence.View, fence.Version)
		b.fail(paused(err), fence.places...)
		if rose {
			i.staleness.observe(fence.View.Name, time.Now(), fence.first(written, time.Time{}))
		}
	}
	applied := i.apply(ctx, b, all.order)
	now := time.Now()
	for n, c := range all.order {
		if n < len(applied) && !applied[n].Saved.IsZero() && !c.Version.IsZero() {
			i.staleness.observe(c.View.Name, now, c.first(written, applied[n].Saved))
		}
	}
	return b.result()
}

// first returns when the first of the rows was written that were written after a time,
// zero where none was.
func (c *change) first(written []time.Time, after time.Time) (first time.Time) {
	for _, place := range c.places {
		if at := written[place]; !at.Before(after) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// collect adds what one event asks for. An event of a type that no view names asks
// for nothing: it is in the topic for somebody else. A view that this process does
// not know is invalidated all the same:
//
//  1. a process of a newer release, which has the view, fills an entry;
//  2. a row of it changes, and the event reaches this process, not yet replaced;
//  3. were it done with nothing, no other process of the group would get it.
func (i *Invalidator) collect(all *changes, place int, e event.Event) error {
	if e.View == "" {
		for _, v := range i.views.ForEvent(e.Type) {
			all.key(cache.Change{View: v, Key: e.Subject}, place)
		}
		return nil
	}
	at, err := versionOf(e)
	if err != nil {
		return err
	}
	v, ok := i.views.Lookup(e.View)
	if !ok {
		i.log.Debug().Str("view", e.View).Str("type", e.Type).Msg("event of an unknown view")
		if at.IsZero() || !view.ValidName(e.View) {
			return nil
		}
		v = &view.View{Name: e.View} // an entry's name needs no more
	}
	if e.Subject != "" {
		all.key(cache.Change{View: v, Key: e.Subject, Version: at}, place)
		return nil
	}
	if at.IsZero() && !v.Model {
		return fmt.Errorf("%w: an event of the whole of %s needs a version", stream.ErrReject, v.Name)
	}
	all.fence(v, at, place)
	return nil
}

// versionOf returns the version that an event carries, zero where it has none.
func versionOf(e event.Event) (version.Version, error) {
	if e.Version == "" {
		return version.Version{}, nil
	}
	at, err := version.Parse(e.Version)
	if err != nil {
		return version.Version{}, fmt.Errorf("%w: %w", stream.ErrReject, err)
	}
	return at, nil
}

func (c *changes) key(what cache.Change, place int) {
	id := keyed{what.View.Name, what.Key, !what.Version.IsZero()}
	known := c.keys[id]
	if known == nil {
		known = &change{Change: what}
		c.keys[id] = known
		c.order = append(c.order, known)
	}
	if what.Version.Compare(known.Version) > 0 {
		known.Version = what.Version
	}
	known.places = append(known.places, place)
}

func (c *changes) fence(v *view.View, at version.Version, place int) {
	known := c.fences[v.Name]
	if known == nil {
		known = &change{Change: cache.Change{View: v, Version: at}}
		c.fences[v.Name] = known
	}
	if at.Compare(known.Version) > 0 {
		known.Version = at
	}
	known.places = append(known.places, place)
}

// apply invalidates all keys together. Where that fails, each is tried alone, so
// that one key that cannot be invalidated does not fail the others. It returns what
// became of each where it did not fail.
func (i *Invalidator) apply(ctx context.Context, b *batch, keys []*change) []cache.Applied {
	if len(keys) == 0 {
		return nil
	}
	all := make([]cache.Change, len(keys))
	for n, c := range keys {
		all[n] = c.Change
	}
	applied, err := i.store.InvalidateEach(ctx, all)
	if err == nil {
		i.log.Debug().Int("keys", len(keys)).Msg("invalidated")
		return applied
	}
	for _, c := range keys {
		if unwell(err) {
			// Redis is away: it will not answer for the others either.
			b.fail(paused(err), c.places...)
			continue
		}
		_, alone := i.store.Invalidate(ctx, []cache.Change{c.Change})
		b.fail(paused(alone), c.places...)
		if unwell(alone) {
			err = alone
		}
	}
	return nil
}
