package consumers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

// errStore is wrapped by what Redis, not PostgreSQL, failed at.
var errStore = errors.New("the store failed")

// FillerOptions are the choices of a Filler. The zero value is usable.
type FillerOptions struct {
	Lease   time.Duration // renewed while a load goes on, so it bounds how long a dead holder is in the way; 3 s
	Log     zerolog.Logger
	Metrics prometheus.Registerer // nil: none
}

// FillOptions say what a fill is good for.
type FillOptions struct {
	MinXid  *cache.MinXid   // an entry that has not seen this transaction will not do
	AtLeast version.Version // an entry that has seen this much will do, however old it is
	Instead *Replaced       // nothing is done unless this very entry is there; then it will not do, though it is fresh. Nobody waits

	Patience time.Duration // for the turn of its load; 100 ms. None where nobody waits
}

// Replaced tells one entry of a key from another.
type Replaced struct {
	Version version.Version
	Saved   time.Time
}

func (r *Replaced) is(e cache.Entry) bool { return e.Version == r.Version && e.Saved.Equal(r.Saved) }

// After a load, also one that failed, the key is left alone for as long as the load
// took, within these bounds. So however often a key is invalidated or asked for, its
// loads are one at a time and at most some ninety a second, and those that take less
// than pauseMost use half of one connection at most. All who ask meanwhile are answered
// by the next. The pause is short beside what a reader waits.
const (
	pauseLeast = 10 * time.Millisecond
	pauseMost  = 50 * time.Millisecond
)

// looks bounds how often a fill begins again, since others were faster.
const looks = 5

// Filler makes entries out of what the Loader reads. It is safe for concurrent
// use; the lease collapses fills of one key across all processes.
type Filler struct {
	store  *cache.Store
	loader *Loader
	lease  time.Duration
	log    zerolog.Logger
	fills  *prometheus.CounterVec
}

// NewFiller makes a filler that loads with loader into store. The store's
// FenceTTL must exceed the loader's deadline and the lease together.
func NewFiller(store *cache.Store, loader *Loader, o FillerOptions) (*Filler, error) {
	if o.Lease == 0 {
		o.Lease = 3 * time.Second
	}
	if o.Lease < 10*time.Millisecond {
		return nil, fmt.Errorf("a lease of %s cannot be renewed in time", o.Lease)
	}
	fills := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mythic_cache_fills_total",
		Help: "Fills by view and how they ended.",
	}, []string{"view", "outcome"})
	if err := register(o.Metrics, fills); err != nil {
		return nil, err
	}
	return &Filler{store: store, loader: loader, lease: o.Lease, log: o.Log, fills: fills}, nil
}

// Fill makes sure that there is an entry that will do, loading it where there is
// none. It returns nil when there is one and whoever waits has been told.
// cache.ErrLeased says that somebody else is at it, whose snapshot may be older
// than what the caller knows; cache.ErrRefused that the key changed meanwhile.
// Both leave it to the caller whether anybody still needs the entry. Failed loads
// are announced, with outcomeOf their error as the reason, and returned; those that
// nobody waits for are only returned.
func (f *Filler) Fill(ctx context.Context, v *view.View, key string, o FillOptions) error {
	outcome, err := f.fill(ctx, v, key, o)
	f.fills.WithLabelValues(v.Name, outcome).Inc()
	return err
}

func (f *Filler) fill(ctx context.Context, v *view.View, key string, o FillOptions) (outcome string, err error) {
	if o.Instead != nil {
		// It is in nobody's way. Were the turn taken after the lease:
		//
		//  1. this fill takes the lease, and waits for a turn;
		//  2. the key changes, a reader misses, and the reader's fill finds the lease taken;
		//  3. there is no turn, and the reader, who might have had one, has nothing.
		give, err := f.loader.turn(ctx, v, 0)
		if err != nil {
			return "busy", fmt.Errorf("fill %s: %w", v.Name, err)
		}
		defer give()
	}
	lease, outcome, err := f.take(ctx, v, key, o)
	switch {
	case outcome != "":
		return outcome, err
	case errors.Is(err, cache.ErrLeased):
		return "leased", fmt.Errorf("fill %s: %w", v.Name, err)
	case err != nil && ctx.Err() != nil:
		return "canceled", ctx.Err()
	case err != nil:
		return "redis", fmt.Errorf("fill %s: %w: %w", v.Name, errStore, err)
	}
	return f.load(ctx, lease, o)
}

// take takes the lease of a key, unless an entry that will do is there: then the
// outcome says so. It waits while the key is left alone after a load.
func (f *Filler) take(ctx context.Context, v *view.View, key string, o FillOptions) (lease cache.Lease, outcome string, err error) {
	for range looks {
		// Not a Read: that counts what readers find.
		found, err := f.store.Inspect(ctx, v, key)
		if err != nil {
			return cache.Lease{}, "", err
		}
		if o.Instead != nil && !o.Instead.is(found.Entry) {
			return cache.Lease{}, "overtaken", nil
		}
		if o.accept(found) {
			err := f.announce(ctx, found, o)
			if !errors.Is(err, cache.ErrRefused) {
				return cache.Lease{}, "present", err
			}
			continue // it is gone again, so it has to be loaded after all
		}
		if !found.NotBefore.IsZero() {
			if err := sleep(ctx, found.NotBefore.Sub(found.Now)); err != nil {
				return cache.Lease{}, "", err
			}
			continue // others have waited too, and one of them may be at it
		}
		// Before the snapshot: of a change that is applied between the two the lease
		// knows, so a value that has not seen it cannot be put.
		lease, err = f.leaseOf(ctx, v, key, found)
		if !errors.Is(err, cache.ErrOvertaken) {
			return lease, "", err
		}
	}
	return cache.Lease{}, "", fmt.Errorf("%w: others were faster %d times", cache.ErrLeased, looks)
}

// leaseOf takes the lease of a key that was looked at, unless another has put an entry
// since: two loads would be made of one. What was found and not understood (it is
// damaged, or a later release's) can be told from nothing, so it only has to make
// way. Who holds its lease cannot be seen either: it may be the pause after a load.
func (f *Filler) leaseOf(ctx context.Context, v *view.View, key string, found cache.Inspection) (cache.Lease, error) {
	if found.State != "unknown" {
		return f.store.LeaseSince(ctx, v, key, f.lease, found.Entry)
	}
	lease, err := f.store.Lease(ctx, v, key, f.lease)
	if errors.Is(err, cache.ErrLeased) {
		if err := sleep(ctx, pauseMost); err != nil {
			return cache.Lease{}, err
		}
		return f.store.Lease(ctx, v, key, f.lease)
	}
	return lease, err
}

// sleep waits for so long, or fails where the context ends before.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// load makes the entry and puts it, which ends the lease.
func (f *Filler) load(ctx context.Context, lease cache.Lease, o FillOptions) (outcome string, err error) {
	v, key := lease.View, lease.Key
	stop := f.hold(ctx, lease)
	loaded, err := f.read(ctx, v, key, o)
	stop()
	end := cache.GivenUp{Pause: pauseAfter(loaded.Took), Quiet: o.Instead != nil}
	if errors.Is(err, ErrBusy) {
		end.Reason, end.Pause = "busy", 0
		return end.Reason, errors.Join(err, f.giveUp(ctx, lease, end))
	}
	if err != nil {
		end.Reason = outcomeOf(err)
		return end.Reason, errors.Join(err, f.giveUp(ctx, lease, end))
	}
	if loaded.Version.Compare(o.AtLeast) < 0 {
		// The change was seen elsewhere than where loads go: after a failover, the
		// old primary may still answer.
		err := fmt.Errorf("fill %s: loaded at %s, which is older than the change at %s", v.Name, loaded.Version, o.AtLeast)
		end.Reason = "behind"
		return end.Reason, errors.Join(err, f.giveUp(ctx, lease, end))
	}
	_, err = f.store.Put(ctx, lease, cache.Fill{
		Negative: !loaded.Found, Owner: loaded.Owner, Owned: loaded.Owned,
		Version: loaded.Version, Snapshot: loaded.Snapshot, Body: loaded.Body, LoadTook: loaded.Took,
		Pause: end.Pause,
	})
	switch {
	case errors.Is(err, cache.ErrRefused):
		return "refused", fmt.Errorf("fill %s: %w", v.Name, err)
	case err != nil:
		end.Reason = "redis"
		return end.Reason, errors.Join(fmt.Errorf("fill %s: %w: %w", v.Name, errStore, err), f.giveUp(ctx, lease, end))
	}
	return "filled", nil
}

// read reads the truth, in the turn that a fill has already where nobody waits for it.
func (f *Filler) read(ctx context.Context, v *view.View, key string, o FillOptions) (Loaded, error) {
	if o.Instead != nil {
		return f.loader.loadNow(ctx, v, key)
	}
	return f.loader.loadInTurn(ctx, v, key, cmp.Or(o.Patience, firstPatience))
}

func pauseAfter(took time.Duration) time.Duration { return min(max(took, pauseLeast), pauseMost) }

// accept reports whether what is there needs no fill: it is fresh and has seen
// the transaction or, for a change of rows, it has seen that change.
func (o FillOptions) accept(found cache.Inspection) bool {
	seen := found.Entry.Snapshot
	switch {
	case found.Status == cache.Miss, o.Instead != nil:
		return false
	case o.MinXid != nil && (!seen.Sees(o.MinXid.Xid) || o.MinXid.Epoch != 0 && o.MinXid.Epoch != seen.Epoch):
		return false
	case !o.AtLeast.IsZero():
		return found.Entry.Version.Compare(o.AtLeast) >= 0
	}
	return found.Status == cache.Hit
}

// announce tells those who just asked of an entry that was there already. After
// a change of rows nobody has asked.
func (f *Filler) announce(ctx context.Context, found cache.Inspection, o FillOptions) error {
	if !o.AtLeast.IsZero() {
		return nil
	}
	if err := f.store.Announce(ctx, found.Entry); err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	return nil
}

// hold renews a lease until the stop that it returns, which waits for the last
// renewal. A lease that is lost is not renewed: the put finds out, and what was
// loaded still answers those who asked before the lease was taken.
func (f *Filler) hold(ctx context.Context, lease cache.Lease) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(f.lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, err := f.store.Renew(ctx, lease, f.lease); errors.Is(err, cache.ErrLost) {
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// giveUp returns a lease after a failed load, also when the caller's context has
// ended: otherwise the key could not be filled until the lease runs out.
func (f *Filler) giveUp(ctx context.Context, lease cache.Lease, end cache.GivenUp) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := f.store.GiveUp(ctx, lease, end); err != nil && !errors.Is(err, cache.ErrLost) {
		return fmt.Errorf("give the lease back: %w", err)
	}
	return nil
}
