package producers

import (
	"context"
	"time"

	"mythiccache/cache/version"
)

// redisBound is how long one call of Redis may take.
const redisBound = 5 * time.Second

// patience bounds the calls of Redis that a leader makes. PostgreSQL takes a session
// that says nothing for that of a process that was stopped; one that waits for a slow
// Redis says something now and then.
type patience struct {
	keep func(context.Context) error // the session; nil: there is none
}

// call does one call, and returns its error or the session's.
func (p *patience) call(ctx context.Context, do func(context.Context) error) error {
	if p == nil || p.keep == nil {
		return do(ctx)
	}
	if err := p.keep(ctx); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, redisBound)
	defer cancel()
	var err error
	done := make(chan struct{})
	go func() { defer close(done); err = do(bounded) }()
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return err
		case <-tick.C:
			if err := p.keep(ctx); err != nil {
				cancel()
				<-done
				return err
			}
		}
	}
}

// patientFences are Fences that are called with patience.
type patientFences struct {
	Fences

	patience *patience
}

// FenceAll implements Fences.
func (f patientFences) FenceAll(ctx context.Context, at version.Version) error {
	return f.patience.call(ctx, func(ctx context.Context) error { return f.Fences.FenceAll(ctx, at) })
}

// FenceViews implements Fences.
func (f patientFences) FenceViews(ctx context.Context, names []string, at version.Version) error {
	return f.patience.call(ctx, func(ctx context.Context) error { return f.Fences.FenceViews(ctx, names, at) })
}

// EnsureViews implements Fences.
func (f patientFences) EnsureViews(ctx context.Context, at version.Version) error {
	return f.patience.call(ctx, func(ctx context.Context) error { return f.Fences.EnsureViews(ctx, at) })
}
