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
	w.breakers.done(d, time.Now(), err)
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
		return errors.Join(errUnkept, w.unkept(ctx, d, lease, err))
	}
	fill := cache.Fill{Owner: d.scope, Owned: true, Body: body, LoadTook: took}
	if d.noStore || !w.lasting(answer) && !d.brought() {
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
	w.countJoined(ctx, d, answer)
	return w.settle(ctx, d)
}

// errUnkept says that an answer has no form in which it could be kept.
var errUnkept = errors.New("the model's answer cannot be kept")

// unkept ends the lease of such an answer, so that nobody has to wait it out.
func (w *Warmer) unkept(ctx context.Context, d aiData, lease cache.Lease, why error) error {
	w.note("an answer not encoded", d.key, why)
	if d.instead != nil {
		w.letGo(ctx, lease)
		return nil
	}
	return w.giveBack(ctx, lease, errUnkept.Error())
}

// countJoined counts the questions that an answer has spared beside its own.
func (w *Warmer) countJoined(ctx context.Context, d aiData, answer cache.Answer) {
	joined, err := w.answers.Joined(ctx, d.key)
	w.note("questions not counted that joined", d.key, err)
	for range joined {
		w.account.HitOf(d.scope, d.model, answer.Usage)
	}
}

// brought reports whether the app brings the answer, which may have ended for reasons of
// its own; one of which it says that it was cut short, or declined, is treated like those.
func (d *aiData) brought() bool {
	a := d.answer
	return a.Key != "" && a.Refusal == "" && a.FinishReason != "content_filter" && !a.Truncated()
}

// lasting reports whether an answer is kept for who asks later.
func (w *Warmer) lasting(answer cache.Answer) bool {
	return answer.Lasting() || answer.Truncated() && w.o.KeepTruncated
}

// failed tells those who wait, gives the lease back, and decides what becomes of
// the event. A failure is never stored as an answer.
func (w *Warmer) failed(ctx context.Context, d aiData, lease cache.Lease, flow *cache.FlowWriter, err error) error {
	var refusal *ModelError
	isRefusal := errors.As(err, &refusal)
	w.sayFailed(d, err, refusal)
	switch {
	case errors.Is(err, errLeaseLost):
		return err // there is nothing to give back
	case ctx.Err() != nil && !isRefusal:
		w.end(ctx, flow, d.key, cache.FlowFailed+"stopped")
		return errors.Join(later("%w", err), w.giveBack(ctx, lease, "the worker stops"))
	}
	w.end(ctx, flow, d.key, endOf(err, refusal))
	var alone bool
	var wait time.Duration
	if isRefusal && refusal.slows() {
		alone, wait = w.heed(ctx, d, refusal)
	}
	if isRefusal && refusal.Busy() {
		return w.refusedBusy(ctx, d, lease, alone, wait, err)
	}
	failure := cache.Failure{Reason: err.Error(), Final: isRefusal && refusal.final()}
	owed := failure.Final && !refusal.Permanent() && w.owed(ctx, d)
	// Before the lease is free, so that the next one to hold it knows.
	w.remember(ctx, d, failure)
	if !failure.Final {
		return errors.Join(err, w.giveBack(ctx, lease, failure.Reason))
	}
	// Whoever asked is told, and it is counted. Nothing else is left to do, unless the app
	// is owed word of a question that was right.
	w.o.Templates.count(d.template, "refused")
	told := w.giveBack(ctx, lease, cache.AnswerRefused+failure.Reason)
	if told == nil && owed {
		return fmt.Errorf("%w: %w", err, stream.ErrReject)
	}
	return told
}

// owed reports whether the app is to hear of a question that ends, its own or one that has
// joined.
func (w *Warmer) owed(ctx context.Context, d aiData) bool {
	_, joined, err := w.answers.Line(ctx, d.key, d.entry)
	w.note("who has joined a question not known", d.key, err)
	return d.durable || joined
}

// unprovenFor is how old a question of the app's, or one that such a one has joined, may
// become of which nobody can tell whether it is the question or the model that the provider
// means: any limit by the day is over by then.
const unprovenFor = 24 * time.Hour

// refusedBusy decides what becomes of an event for whose question the provider had no
// time. Where the question alone is meant, it costs a delivery: it may be so for ever.
func (w *Warmer) refusedBusy(ctx context.Context, d aiData, lease cache.Lease, alone bool, wait time.Duration, why error) error {
	told := max(wait, w.pauses.left(d.model, time.Now()))
	if err := w.giveBack(ctx, lease, cache.BusyReason(told, why.Error())); err != nil {
		return err
	}
	if !d.noStore && (alone || d.age(time.Now()) > unprovenFor) {
		return why
	}
	return w.putBy(ctx, d, wait, why)
}

// sayFailed logs a failure, with what of it is not for those who ask.
func (w *Warmer) sayFailed(d aiData, err error, refusal *ModelError) {
	line := w.o.Log.Debug().Str("key", d.key).Err(err)
	if refusal != nil && refusal.Detail != "" {
		line = line.Str("detail", refusal.Detail)
	}
	line.Msg("no answer")
}

// endOf is the mark that ends the flow of an answer which failed.
func endOf(err error, refusal *ModelError) string {
	switch {
	case errors.Is(err, errTooLong):
		return cache.FlowFailed + "timeout"
	case refusal == nil:
		return cache.FlowFailed + "unknown"
	case refusal.final():
		return cache.FlowRefused + refusal.tag()
	default:
		return cache.FlowFailed + refusal.tag()
	}
}

// remember keeps a failure for a moment. Where that fails, the model is asked once more.
// One that is final is the end of all questions in the line.
func (w *Warmer) remember(ctx context.Context, d aiData, f cache.Failure) {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	if err := w.answers.Fail(ctx, d.scope, d.key, f); err != nil {
		w.o.Log.Warn().Err(err).Str("key", d.key).Msg("failure of the model not noted")
	}
	if f.Final {
		w.note("a line not ended", d.key, w.answers.EndLine(ctx, d.key))
	}
}

// giveBack ends a lease without an answer. Where that fails nobody has been told, and the
// event is not done: others may have joined it. It is a pause, then.
func (w *Warmer) giveBack(ctx context.Context, lease cache.Lease, reason string) error {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	if err := w.store.Abandon(ctx, lease, reason); err != nil && !errors.Is(err, cache.ErrLost) {
		// It runs out by itself; until then the next one to ask is put off.
		w.o.Log.Warn().Err(err).Str("key", lease.Key).Msg("lease not given back")
		return unavailable(err)
	}
	return nil
}
