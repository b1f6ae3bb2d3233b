package consumers

import (
	"context"
	"time"

	"mythiccache/cache"
)

const (
	// scopesKept bounds the scopes whose costs wait to be written; those of others are
	// in the sums alone.
	scopesKept = 10_000
	// costsEvery is how often they are written.
	costsEvery = 5 * time.Second
)

// charge adds to what a scope has cost. It is called with the lock held.
func (a *Account) charge(scope string, add func(*cache.ScopeCost)) {
	if scope == "" {
		return
	}
	cost := a.scopes[scope]
	if cost == nil {
		if len(a.scopes) >= scopesKept {
			return
		}
		cost = &cache.ScopeCost{Scope: cache.HashScope(scope)}
		a.scopes[scope] = cost
	}
	add(cost)
}

// flush writes what scopes have cost since the last time.
func (a *Account) flush(ctx context.Context, store *cache.Store) error {
	a.mu.Lock()
	scopes := a.scopes
	a.scopes = map[string]*cache.ScopeCost{}
	a.mu.Unlock()
	costs := make([]cache.ScopeCost, 0, len(scopes))
	for _, cost := range scopes {
		costs = append(costs, *cost)
	}
	err := store.AddCosts(ctx, costs)
	if err == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for scope, old := range scopes {
		a.charge(scope, func(c *cache.ScopeCost) {
			c.TokensSpent += old.TokensSpent
			c.TokensSaved += old.TokensSaved
			c.MoneySpent += old.MoneySpent
			c.MoneySaved += old.MoneySaved
		})
	}
	return err
}

// Run writes what scopes have cost until the context ends, and once more then. Redis
// being away is not logged: every part that cannot do without it says so.
func (a *Account) Run(ctx context.Context, store *cache.Store) error {
	tick := time.NewTicker(costsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			a.flushLast(ctx, store)
			return nil
		case <-tick.C:
			_ = a.flush(ctx, store) // what is not written stays for the next time
		}
	}
}

// flushLast writes what is left though the context has ended.
func (a *Account) flushLast(ctx context.Context, store *cache.Store) {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	_ = a.flush(ctx, store) // nobody is left to try again
}
