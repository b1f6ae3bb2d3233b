package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/stream"
)

// ask sees to it that an answer stands.
func (w *Warmer) ask(ctx context.Context, d aiData) error {
	switch there, err := w.present(ctx, d); {
	case err != nil:
		return err
	case there:
		return nil
	}
	if left := w.pause.left(time.Now()); left > 0 {
		return later("the model wants no calls for %s", left.Round(time.Millisecond))
	}
	if err := w.storable(ctx); err != nil {
		return err
	}
	lease, err := w.store.Lease(ctx, w.o.View, d.key, w.o.LeaseFor)
	if errors.Is(err, cache.ErrLeased) {
		return later("the answer is being made")
	}
	if err != nil {
		return unavailable(err)
	}
	// Between the look above and the lease, another may have put the answer and
	// given its lease back.
	there, err := w.present(ctx, d)
	if err != nil || there {
		w.giveBack(ctx, lease, "the answer is there")
		return err
	}
	wanted, err := w.answers.Claim(ctx, d.scope, d.key, d.entry)
	if err != nil {
		w.giveBack(ctx, lease, "the answer was not claimed")
		return unavailable(err)
	}
	if !wanted {
		w.giveBack(ctx, lease, "the answer was forgotten")
		return w.settle(ctx, d)
	}
	return w.make(ctx, d, lease)
}

// present reports whether the answer is there, and if so hands it to those who
// have just asked. An answer that only waits for Redis's restart to be confirmed
// is there: nothing but ai.forget, which comes again, could have made it wrong.
func (w *Warmer) present(ctx context.Context, d aiData) (bool, error) {
	found, err := w.store.Read(ctx, cache.Query{View: w.o.View, Key: d.key})
	if err != nil {
		return false, unavailable(err)
	}
	if found.Status == cache.Miss || found.Status == cache.Stale && found.Why == cache.WhyStale {
		return false, nil
	}
	err = w.store.Announce(ctx, found.Entry)
	if errors.Is(err, cache.ErrRefused) {
		return false, nil // it has been removed since
	}
	if err != nil {
		return false, unavailable(err)
	}
	w.account.hit(found.Entry.Body)
	w.o.Log.Debug().Str("key", d.key).Msg("answer is there already")
	return true, w.settle(ctx, d)
}

// storable makes sure that an answer could be stored before one is paid for: the
// view's own key is made by the relay, which may not have got there yet.
func (w *Warmer) storable(ctx context.Context) error {
	known, err := w.store.Confirmed(ctx, []*view.View{w.o.View})
	if err != nil {
		return unavailable(err)
	}
	if _, ok := known[w.o.View.Name]; !ok {
		return later("the view of answers is not there yet")
	}
	return nil
}

// make asks the model and stores what it says. The lease is held.
func (w *Warmer) make(ctx context.Context, d aiData, lease cache.Lease) error {
	started := time.Now()
	answer, lease, err := w.call(ctx, d, lease)
	took := time.Since(started)
	w.account.called(answer.Usage, took, err)
	if err != nil {
		return w.failed(ctx, d, lease, err)
	}
	answer.Key = d.key
	if answer.Created == 0 {
		answer.Created = time.Now().Unix()
	}
	// Paid for: it is stored even when this process is told to stop.
	ctx, cancel := afterwards(ctx)
	defer cancel()
	if err := w.put(ctx, d, lease, answer, took); err != nil {
		return err
	}
	w.o.Log.Debug().Str("key", d.key).Str("model", answer.Model).Dur("took", took).
		Int64("tokens", answer.Usage.TotalTokens).Msg("answer made")
	return nil
}

// put stores an answer.
func (w *Warmer) put(ctx context.Context, d aiData, lease cache.Lease, answer cache.Answer, took time.Duration) error {
	body, err := answer.Encode()
	if err != nil {
		return err
	}
	_, err = w.store.Put(ctx, lease, cache.Fill{Owner: d.scope, Owned: true, Body: body, LoadTook: took})
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

// failed gives the lease back, tells those who wait, and decides what becomes of
// the event. A failure is never stored as an answer.
func (w *Warmer) failed(ctx context.Context, d aiData, lease cache.Lease, err error) error {
	w.o.Log.Debug().Str("key", d.key).Err(err).Msg("no answer")
	var refusal *ModelError
	switch {
	case errors.Is(err, errLeaseLost):
		return err
	case errors.As(err, &refusal) && refusal.Permanent():
		after, cancel := afterwards(ctx)
		defer cancel()
		// Before the announcement: who hears it may look at once.
		noted := w.answers.Refuse(after, d.scope, d.key, err.Error())
		w.giveBack(ctx, lease, cache.AnswerRefused+err.Error())
		if noted != nil {
			return unavailable(noted)
		}
		return fmt.Errorf("%w: %w", err, stream.ErrReject)
	case ctx.Err() != nil:
		w.giveBack(ctx, lease, "the worker stops")
		return later("%w", err)
	}
	w.giveBack(ctx, lease, err.Error())
	if refusal != nil && (refusal.Busy() || refusal.RetryAfter > 0) {
		w.slowDown(refusal)
	}
	if refusal != nil && refusal.Busy() {
		return later("%w", err)
	}
	return err
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

// settle ends the waiting for an answer.
func (w *Warmer) settle(ctx context.Context, d aiData) error {
	if err := w.answers.Settle(ctx, d.scope, d.key); err != nil {
		return unavailable(err)
	}
	return nil
}

// unavailable is an error of Redis: no fault of the event's.
func unavailable(err error) error { return fmt.Errorf("%w: %w", err, stream.ErrPause) }
