package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"mythiccache/cache"
)

// readInstead reads {"instead":"<version>","saved":"<ms>"}, which an API process says of
// an answer that is asked for so often that it is to be made again before its time is
// over.
func (d *aiData) readInstead(fields map[string]json.RawMessage) error {
	var instead, saved string
	if err := errors.Join(takeText(fields, "instead", &instead), takeText(fields, "saved", &saved)); err != nil || instead == "" {
		return err
	}
	var err error
	if d.instead, err = replacedOf(instead, saved); err != nil {
		return fmt.Errorf("%w: instead and saved tell no answer", cache.ErrRequest)
	}
	d.warm = true // whoever asks for it has an answer
	return nil
}

// askAgain makes an answer anew while the one that is there is served. It is done once
// per answer, however many processes ask:
//
//  1. each event names the answer that its process saw, and is void when another is there;
//  2. the lease is given to one, and only while that answer is there; the others have
//     nothing to wait for.
//
// What goes wrong changes nothing: the old answer stays until its time is over. It is
// not put off, either, since by then somebody asks who waits.
func (w *Warmer) askAgain(ctx context.Context, d aiData) error {
	found, err := w.store.Read(ctx, cache.Query{View: w.o.View, Key: d.key})
	if err != nil {
		return unavailable(err)
	}
	if d.noStore || found.Status != cache.Hit || !d.instead.is(found.Entry) || isBrought(found.Entry) {
		return nil
	}
	if w.pauses.left(d.model, time.Now()) > 0 || w.breakers.left(d, time.Now()) > 0 {
		return w.drop(d, "refresh")
	}
	lease, err := w.store.LeaseSince(ctx, w.o.View, d.key, w.o.LeaseFor, found.Entry)
	if errors.Is(err, cache.ErrLeased) || errors.Is(err, cache.ErrOvertaken) {
		return nil
	}
	if err != nil {
		return unavailable(err)
	}
	wanted, failed, err := w.answers.Claim(ctx, d.scope, d.key, d.entry)
	d.before = failed.Deferral
	switch {
	case err != nil || !wanted:
	case d.before.Left > 0:
		err = &notNowError{why: "the model has no time for this question", wait: d.before.Left}
	default:
		lease, err = w.makeAgain(ctx, d, lease)
	}
	w.letGo(ctx, lease)
	return w.concludeAgain(ctx, d, err)
}

// isBrought reports whether an answer is the app's: what the model says is no better.
func isBrought(e cache.Entry) bool {
	var answer cache.Answer
	return json.Unmarshal(e.Body, &answer) == nil && answer.Brought
}

// letGo ends a lease, if there is one, quietly: nobody waits for what it was taken for.
func (w *Warmer) letGo(ctx context.Context, lease cache.Lease) {
	if lease == (cache.Lease{}) {
		return
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	w.note("lease not given back", lease.Key, w.store.GiveUp(ctx, lease, cache.GivenUp{Reason: "the answer is not made again", Quiet: true}))
}

// makeAgain asks the model, and puts what is as good as the old answer in its place. It
// returns the lease that is to be given back, which is none where that has ended.
func (w *Warmer) makeAgain(ctx context.Context, d aiData, lease cache.Lease) (cache.Lease, error) {
	held, err := w.mayCall(ctx, d)
	if err != nil {
		return lease, err
	}
	started := time.Now()
	answer, lease, flow, err := w.call(ctx, d, lease)
	took := time.Since(started)
	w.breakers.done(d, time.Now(), err)
	w.settleSpent(ctx, held, answer.Usage, err)
	w.account.called(d.scope, d.model, answer.Usage, took, err)
	if err == nil && !w.lasting(answer) {
		err = errNotAsGood
	}
	if err != nil {
		w.end(ctx, flow, d.key, cache.FlowFailed+"kept")
		var refusal *ModelError
		if errors.As(err, &refusal) && refusal.slows() {
			w.heed(ctx, d, refusal)
		}
		return lease, err
	}
	answer.Key = d.key
	ctx, cancel := afterwards(ctx) // it is paid for
	defer cancel()
	if err := w.put(ctx, d, lease, answer, took); err != nil {
		w.end(ctx, flow, d.key, cache.FlowFailed+"lost")
		return cache.Lease{}, err
	}
	w.end(ctx, flow, d.key, cache.FlowDone)
	w.o.Log.Debug().Str("key", d.key).Str("model", answer.Model).Dur("took", took).Msg("answer made again")
	return cache.Lease{}, nil
}

// errNotAsGood says that a new answer would not be kept, which is no reason to lose the
// old one.
var errNotAsGood = errors.New("the new answer is cut short, or none")

// concludeAgain decides what becomes of the event: it is done, unless this process stops.
func (w *Warmer) concludeAgain(ctx context.Context, d aiData, err error) error {
	settling, cancel := afterwards(ctx)
	defer cancel()
	if err == nil {
		w.note("an answer not settled", d.key, w.answers.Settle(settling, d.scope, d.key))
		return nil
	}
	w.note("an answer not settled", d.key, w.answers.Leave(settling, d.scope, d.key))
	if ctx.Err() != nil {
		return later("%w", err)
	}
	w.note("an answer not made again", d.key, err)
	return w.drop(d, "refresh")
}
