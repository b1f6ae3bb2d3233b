package consumers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"mythiccache/cache"
)

var (
	errLeaseLost = errors.New("the lease on the answer was lost")
	errTooLong   = errors.New("the model took too long")
)

// call asks the model while a lease is renewed, and returns the lease as it then
// is. What the model says flows to those who wait, as it says it; the flow is the
// caller's to end. It ends early, with errLeaseLost, when the lease is no longer ours:
// the answer was forgotten, or the app brought one, or Redis was away for too long.
func (w *Warmer) call(ctx context.Context, d aiData, lease cache.Lease) (cache.Answer, cache.Lease, *cache.FlowWriter, error) {
	stopped := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, w.o.CallFor, errTooLong)
	defer cancel()
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)

	flow := w.answers.Flow(ctx, lease, func() { lost(fmt.Errorf("%w: it is another's", errLeaseLost)) })

	done := make(chan struct{})
	var renewing sync.WaitGroup
	renewing.Go(func() {
		var err error
		if lease, err = w.renew(ctx, done, lease); err != nil {
			lost(err)
		}
	})
	began := time.Now()
	created := began.Unix()
	first := true
	answer, err := w.o.Model.Answer(ctx, d.canonical, func(p cache.FlowPart) {
		if first {
			w.pauses.took(d.model, began)
			if p.Created == 0 {
				p.Created = created
			}
		}
		first = false
		w.note("a piece of an answer not told", d.key, flow.Add(p))
	})
	if answer.Created == 0 {
		answer.Created = created
	}
	// Before the lease ends, and whatever stopped the call.
	closing, cancelClosing := afterwards(stopped)
	defer cancelClosing()
	w.note("an answer not told to its end", d.key, flow.Close(closing))
	close(done)
	renewing.Wait()

	switch cause := context.Cause(ctx); {
	case err == nil:
		return answer, lease, flow, nil
	case errors.Is(cause, errLeaseLost), errors.Is(cause, errTooLong):
		return cache.Answer{}, lease, flow, cause
	default:
		return cache.Answer{}, lease, flow, err
	}
}

// note logs what does not change how an answer is made.
func (w *Warmer) note(what, key string, err error) {
	if err != nil {
		w.o.Log.Debug().Err(err).Str("key", key).Msg(what)
	}
}

// end tells those who follow an answer how its making ended. They find out by other
// ways too.
func (w *Warmer) end(ctx context.Context, flow *cache.FlowWriter, key, mark string) {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	w.note("the end of an answer not told", key, flow.End(ctx, mark))
}

// renew keeps a lease until done is closed, and returns it as it then is, or
// errLeaseLost. An error of Redis is not yet a loss: the next round tries again,
// and the put decides in the end.
func (w *Warmer) renew(ctx context.Context, done <-chan struct{}, lease cache.Lease) (cache.Lease, error) {
	ticker := time.NewTicker(w.o.LeaseFor / 3)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return lease, nil
		case <-ctx.Done():
			return lease, nil
		case <-ticker.C:
		}
		renewed, err := w.store.Renew(ctx, lease, w.o.LeaseFor)
		switch {
		case err == nil:
			lease = renewed
		case errors.Is(err, cache.ErrLost):
			return lease, fmt.Errorf("%w: %w", errLeaseLost, err)
		case ctx.Err() == nil:
			w.o.Log.Debug().Err(err).Str("key", lease.Key).Msg("lease not renewed")
		}
	}
}
