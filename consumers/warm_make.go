package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mythiccache/cache"
	"mythiccache/producers/stream"
)

// handOver is how long an answer stands that is only for those who wait for it: one
// that was cut short, or declined, or asked for with no_store.
const handOver = 10 * time.Second

// make asks the model and stores what it says. The lease is held.
func (w *Warmer) make(ctx context.Context, d aiData, lease cache.Lease) error {
	held, err := w.mayCall(ctx, d)
	if err != nil {
		return w.putOff(ctx, d, lease, err)
	}
	started := time.Now()
	answer, lease, flow, err := w.call(ctx, d, lease)
	took := time.Since(started)
	w.breakers.done(d.model, time.Now(), err)
	w.settleSpent(ctx, held, answer.Usage, err)
	w.account.called(d.scope, d.model, answer.Usage, took, err)
	if err != nil {
		return w.failed(ctx, d, lease, flow, err)
	}
	answer.Key = d.key
	// Paid for: it is stored even when this process is told to stop.
	ctx, cancel := afterwards(ctx)
	defer cancel()
	if err := w.put(ctx, d, lease, answer, took); err != nil {
		w.end(ctx, flow, d.key, cache.FlowFailed+"lost")
		return err
	}
	w.end(ctx, flow, d.key, cache.FlowDone)
	w.o.Templates.count(d.template, "made")
	w.o.Log.Debug().Str("key", d.key).Str("model", answer.Model).Dur("took", took).
		Int64("tokens", answer.Usage.TotalTokens).Msg("answer made")
	return nil
}

// put stores an answer, or lets it stand for a moment where it is not to last.
func (w *Warmer) put(ctx context.Context, d aiData, lease cache.Lease, answer cache.Answer, took time.Duration) error {
	body, err := answer.Encode()
	if err != nil {
		return err
	}
	fill := cache.Fill{Owner: d.scope, Owned: true, Body: body, LoadTook: took}
	if d.noStore || !w.lasting(answer) {
		fill.TTL, fill.Brief = handOver, true
	}
	_, err = w.store.Put(ctx, lease, fill)
	if errors.Is(err, cache.ErrRefused) {
		// Forgotten, or answered by the app, or the lease ran out: coming back, the
		// event finds out which.
		return fmt.Errorf("store the answer: %w", err)
	}
	if err != nil {
		return unavailable(err)
	}
	return w.settle(ctx, d)
}

// lasting reports whether an answer is kept for who asks later.
func (w *Warmer) lasting(answer cache.Answer) bool {
	return answer.Lasting() || answer.Truncated() && w.o.KeepTruncated
}

// failed tells those who wait, gives the lease back, and decides what becomes of
// the event. A failure is never stored as an answer.
func (w *Warmer) failed(ctx context.Context, d aiData, lease cache.Lease, flow *cache.FlowWriter, err error) error {
	w.o.Log.Debug().Str("key", d.key).Err(err).Msg("no answer")
	var refusal *ModelError
	isRefusal := errors.As(err, &refusal)
	switch {
	case errors.Is(err, errLeaseLost):
		return err // there is nothing to give back
	case ctx.Err() != nil && !isRefusal:
		w.end(ctx, flow, d.key, cache.FlowFailed+"stopped")
		w.giveBack(ctx, lease, "the worker stops")
		return later("%w", err)
	case errors.Is(err, errTooLong):
		w.end(ctx, flow, d.key, cache.FlowFailed+"timeout")
	case isRefusal && refusal.Permanent():
		w.end(ctx, flow, d.key, cache.FlowRefused+refusal.tag())
	case isRefusal:
		w.end(ctx, flow, d.key, cache.FlowFailed+refusal.tag())
	default:
		w.end(ctx, flow, d.key, cache.FlowFailed+"unknown")
	}
	if isRefusal && (refusal.Busy() || refusal.RetryAfter > 0) {
		w.slowDown(refusal)
	}
	if isRefusal && refusal.Busy() {
		w.giveBack(ctx, lease, cache.BusyReason(w.pause.left(time.Now()), err.Error()))
		return later("%w", err)
	}
	failure := cache.Failure{Reason: err.Error(), Final: isRefusal && refusal.Permanent()}
	// Before the lease is free, so that the next one to hold it knows.
	w.remember(ctx, d, failure)
	if failure.Final {
		w.giveBack(ctx, lease, cache.AnswerRefused+failure.Reason)
		return fmt.Errorf("%w: %w", err, stream.ErrReject)
	}
	w.giveBack(ctx, lease, failure.Reason)
	return err
}

// remember keeps a failure for a moment. Where that fails, the model is asked once more.
func (w *Warmer) remember(ctx context.Context, d aiData, f cache.Failure) {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	if err := w.answers.Fail(ctx, d.scope, d.key, f); err != nil {
		w.o.Log.Warn().Err(err).Str("key", d.key).Msg("failure of the model not noted")
	}
}

// giveBack ends a lease without an answer.
func (w *Warmer) giveBack(ctx context.Context, lease cache.Lease, reason string) {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	if err := w.store.Abandon(ctx, lease, reason); err != nil && !errors.Is(err, cache.ErrLost) {
		// It runs out by itself; until then the next one to ask is put off.
		w.o.Log.Warn().Err(err).Str("key", lease.Key).Msg("lease not given back")
	}
}
