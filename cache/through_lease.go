package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

// take takes the lease of a key. What is made under it is put only where the view
// has its key, which nobody else makes.
func (m *memo) take(ctx context.Context, key string) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, m.redisFor)
	defer cancel()
	if err := m.ensure(ctx); err != nil {
		return Lease{}, err
	}
	return m.store.Lease(ctx, m.view, key, m.leaseFor)
}

// ensure makes the view's key where it is not there: at first, and after a FLUSHALL.
// What a lost key may have fenced stays fenced: nothing from before counts.
func (m *memo) ensure(ctx context.Context) error {
	known, err := m.store.Confirmed(ctx, []*view.View{m.view})
	if err != nil {
		return err
	}
	if _, ok := known[m.view.Name]; ok {
		return nil
	}
	now, err := m.store.now(ctx)
	if err != nil {
		return err
	}
	_, err = m.store.fence(ctx, []fencing{{m.view, version.At(now), fenceCreate}})
	return err
}

// renew keeps a lease until stop is called, which waits for the last renewal, but
// not for longer than a call may take: a function that heeds no context does not
// keep others away for good.
func (m *memo) renew(ctx context.Context, lease *Lease) (stop func()) {
	ctx, cancel := context.WithTimeout(ctx, m.callFor)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		ticker := time.NewTicker(m.leaseFor / 3)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if errors.Is(m.renewOnce(ctx, lease), ErrLost) {
				return // the put is refused, and says why
			}
		}
	})
	return func() {
		cancel()
		renewing.Wait()
	}
}

// renewOnce gives a lease more time. An error of Redis is not yet a loss.
func (m *memo) renewOnce(ctx context.Context, lease *Lease) error {
	within, cancel := context.WithTimeout(ctx, m.redisFor)
	defer cancel()
	renewed, err := m.store.Renew(within, *lease, m.leaseFor)
	if err == nil {
		*lease = renewed
	} else if ctx.Err() == nil {
		m.store.log.Debug().Err(err).Str("view", m.view.Name).Str("key", lease.Key).Msg("lease not renewed")
	}
	return err
}

// giveBack ends a lease without an answer. Where that fails it runs out.
func (m *memo) giveBack(ctx context.Context, lease Lease) {
	within, cancel := m.afterwards(ctx)
	defer cancel()
	if err := m.store.Abandon(within, lease, "the call brought nothing to keep"); err != nil {
		m.failed(ctx, lease.Key, fmt.Errorf("give the lease back: %w", err))
	}
}

// afterwards is a context for what must be said even when ctx has ended.
func (m *memo) afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), m.redisFor)
}
