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

// ask sees to it that an answer stands. One event of a key is first in this
// process; the others wait for what becomes of it, and share its failure.
func (w *Warmer) ask(ctx context.Context, d aiData) error {
	for {
		q, first := w.lines.join(d.key)
		if first {
			return w.first(ctx, d, q)
		}
		select {
		case <-q.done:
		case <-ctx.Done():
			return later("%w", ctx.Err())
		}
		if q.err != nil {
			return q.err
		}
		// Whoever asked with this event may have come too late to hear of it.
		if there, err := w.present(ctx, d); err != nil || there {
			return err
		}
		// The first one's question was forgotten. This one may be newer.
	}
}

// first does the work of a line.
func (w *Warmer) first(ctx context.Context, d aiData, q *line) (err error) {
	err = errors.New("the event before it was not handled to its end") // where seek panics
	defer func() { w.lines.leave(d.key, q, err) }()
	return w.seek(ctx, d)
}

// seek finds the answer or makes it, waiting while another process does.
func (w *Warmer) seek(ctx context.Context, d aiData) error {
	patience := time.NewTimer(w.o.CallFor + w.o.LeaseFor)
	defer patience.Stop()
	for {
		if there, err := w.present(ctx, d); err != nil || there {
			return err
		}
		if left := w.pause.left(time.Now()); left > 0 {
			return later("the model wants no calls for %s", left.Round(time.Millisecond))
		}
		if err := w.storable(ctx); err != nil {
			return err
		}
		lease, err := w.store.Lease(ctx, w.o.View, d.key, w.o.LeaseFor)
		if err == nil {
			return w.lead(ctx, d, lease)
		}
		if !errors.Is(err, cache.ErrLeased) {
			return unavailable(err)
		}
		look := time.NewTimer(lookAgain)
		select {
		case <-look.C:
		case <-patience.C:
			return errors.New("another process has held the answer's lease for too long")
		case <-ctx.Done():
			look.Stop()
			return later("%w", ctx.Err())
		}
	}
}

// lookAgain is how long after it a process looks whether another one has made an
// answer, or has died.
const lookAgain = 200 * time.Millisecond

// lead makes an answer, unless there turns out to be no need. The lease is held.
func (w *Warmer) lead(ctx context.Context, d aiData, lease cache.Lease) error {
	// Between the last look and the lease, another may have put the answer and
	// given its lease back.
	there, err := w.present(ctx, d)
	if err != nil || there {
		w.giveBack(ctx, lease, "the answer is there")
		return err
	}
	wanted, failed, err := w.answers.Claim(ctx, d.scope, d.key, d.entry)
	switch {
	case err != nil:
		w.giveBack(ctx, lease, "the answer was not claimed")
		return unavailable(err)
	case !wanted:
		w.giveBack(ctx, lease, "the answer was forgotten")
		return w.settle(ctx, d)
	case failed.Final:
		w.giveBack(ctx, lease, cache.AnswerRefused+failed.Reason)
		return fmt.Errorf("%s: %w", failed.Reason, stream.ErrReject)
	case failed.Reason != "":
		w.giveBack(ctx, lease, failed.Reason)
		return fmt.Errorf("it was a moment ago that %s", failed.Reason)
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

// failed tells those who wait, gives the lease back, and decides what becomes of
// the event. A failure is never stored as an answer.
func (w *Warmer) failed(ctx context.Context, d aiData, lease cache.Lease, err error) error {
	w.o.Log.Debug().Str("key", d.key).Err(err).Msg("no answer")
	var refusal *ModelError
	isRefusal := errors.As(err, &refusal)
	switch {
	case errors.Is(err, errLeaseLost):
		return err // there is nothing to give back
	case ctx.Err() != nil && !isRefusal:
		w.giveBack(ctx, lease, "the worker stops")
		return later("%w", err)
	}
	if isRefusal && (refusal.Busy() || refusal.RetryAfter > 0) {
		w.slowDown(refusal)
	}
	if isRefusal && refusal.Busy() {
		w.giveBack(ctx, lease, err.Error())
		return later("%w", err)
	}
	failure := cache.Failure{Reason: err.Error(), Final: isRefusal && refusal.Permanent()}
	// Before the lease is free, so that the next one to hold it knows.
	w.note(ctx, d, failure)
	if failure.Final {
		w.giveBack(ctx, lease, cache.AnswerRefused+failure.Reason)
		return fmt.Errorf("%w: %w", err, stream.ErrReject)
	}
	w.giveBack(ctx, lease, failure.Reason)
	return err
}

// note remembers a failure. Where that fails, the model is asked once more.
func (w *Warmer) note(ctx context.Context, d aiData, f cache.Failure) {
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

// settle ends the waiting for an answer.
func (w *Warmer) settle(ctx context.Context, d aiData) error {
	if err := w.answers.Settle(ctx, d.scope, d.key); err != nil {
		return unavailable(err)
	}
	return nil
}

// unavailable is an error of Redis: no fault of the event's.
func unavailable(err error) error { return fmt.Errorf("%w: %w", err, stream.ErrPause) }
