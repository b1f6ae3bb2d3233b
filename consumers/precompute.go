package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// PrecomputerOptions are the choices of a Precomputer. The zero value is usable.
type PrecomputerOptions struct {
	Concurrency int           // fills of one view at a time in one batch; 8
	Patience    time.Duration // how long one key may hold up its batch while others fill it, it keeps changing or has no turn; 250 ms
	Log         zerolog.Logger
}

// Precomputer loads again what changed, for the views that want it, without
// waiting for a reader. Handle is the handler of group "precompute" for the
// topics of tables.
type Precomputer struct {
	store  *cache.Store
	filler *Filler
	views  *view.Set
	o      PrecomputerOptions
}

// NewPrecomputer makes a precomputer of the views' entries.
func NewPrecomputer(store *cache.Store, filler *Filler, views *view.Set, o PrecomputerOptions) *Precomputer {
	if o.Concurrency <= 0 {
		o.Concurrency = 8
	}
	if o.Patience <= 0 {
		o.Patience = 250 * time.Millisecond
	}
	return &Precomputer{store: store, filler: filler, views: views, o: o}
}

// Handle works through a batch, each key once, for the newest of its changes. An
// event is done when the entry has seen it, or when something newer than it has
// invalidated the entry: that has an event of its own.
func (p *Precomputer) Handle(ctx context.Context, messages []*message.Message) []error {
	b := newBatch(messages)
	all := &changes{keys: make(map[keyed]*change)}
	b.events(func(place int, e event.Event) {
		v, ok := p.views.Lookup(e.View)
		// An event of the whole view names no key to load; group "invalidate"
		// fences the view, and its readers ask for what they need.
		if !ok || v.OnChange != view.Precompute || v.Model || e.Subject == "" {
			return
		}
		at, err := versionOf(e)
		if err != nil {
			b.fail(err, place)
			return
		}
		all.key(cache.Change{View: v, Key: e.Subject, Version: at}, place)
	})
	errs := inLanes(ctx, p.o.Concurrency, all.order, func(c *change) *view.View { return c.View }, p.renew)
	for n, c := range all.order {
		b.fail(loadFailure(errs[n]), c.places...)
	}
	return b.result()
}

// renew fills one key until its entry has seen the change.
func (p *Precomputer) renew(ctx context.Context, c *change) error {
	patience := time.NewTimer(p.o.Patience)
	defer patience.Stop()
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		err := p.filler.Fill(ctx, c.View, c.Key, FillOptions{AtLeast: c.Version, Patience: p.o.Patience})
		switch {
		case err == nil:
			return nil
		case errors.Is(err, cache.ErrLeased), errors.Is(err, cache.ErrRefused):
			// Whoever holds the lease may have read before this change, so the
			// entry has to be looked at again once the lease is over.
			over, lookErr := p.overtaken(ctx, c)
			if over || lookErr != nil {
				return paused(lookErr)
			}
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", stream.ErrPause, ctx.Err())
		case <-patience.C:
			return fmt.Errorf("%w: %w", stream.ErrPause, err)
		case <-time.After(pause):
		}
	}
}

// overtaken reports whether something newer than the change has since emptied
// the entry or its view.
func (p *Precomputer) overtaken(ctx context.Context, c *change) (bool, error) {
	found, err := p.store.Inspect(ctx, c.View, c.Key)
	if err != nil {
		return false, fmt.Errorf("look whether a change is overtaken: %w", err)
	}
	newest := found.Version
	if found.Fence.Compare(newest) > 0 {
		newest = found.Fence
	}
	return newest.Compare(c.Version) > 0, nil
}

// loadFailure says to the stream what a failed fill means for its event: an
// absent or busy server is not the event's fault, and costs no delivery.
func loadFailure(err error) error {
	switch {
	case errors.Is(err, ErrBusy): // the view is, others are not
		return fmt.Errorf("%w: %w", stream.ErrLater, err)
	case errors.Is(err, ErrPaused), errors.Is(err, ErrNoEpoch), errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: %w", stream.ErrPause, err)
	case errors.Is(err, errStore):
		return paused(err)
	}
	return err
}
