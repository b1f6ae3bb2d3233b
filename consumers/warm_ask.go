package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/stream"
)

// lookAgain is after what time an event looks again, at most, whether the model may be
// asked by now.
const lookAgain = 5 * time.Second

// ask sees to it that an answer stands: it is there, or is made by somebody else at this
// moment, or this event has it made. It waits for nobody but the model.
func (w *Warmer) ask(ctx context.Context, d aiData) error {
	there, now, err := w.present(ctx, d)
	if err != nil || there {
		return err
	}
	switch late, err := w.late(ctx, d, now); {
	case err != nil:
		return err
	case late:
		return w.outlive(ctx, d)
	}
	if err := w.storable(ctx); err != nil {
		return err
	}
	lease, err := w.store.Lease(ctx, w.o.View, d.key, w.o.LeaseFor)
	if errors.Is(err, cache.ErrLeased) {
		return w.join(ctx, d)
	}
	if err != nil {
		return unavailable(err)
	}
	return w.lead(ctx, d, lease)
}

// join has a question done by another one whose answer is being made (see
// cache.Answers.Join). Where that cannot be it comes back, without having had a place.
func (w *Warmer) join(ctx context.Context, d aiData) error {
	joined, err := w.answers.Join(ctx, d.key, d.entry, d.warm, d.durable)
	if err != nil {
		return unavailable(err)
	}
	if !joined {
		return fmt.Errorf("another has the answer's lease: %w", stream.ErrLater)
	}
	w.o.Log.Debug().Str("key", d.key).Msg("answer is being made")
	return nil
}

// putBy puts a question off of which everybody has heard that it is not asked now.
func (w *Warmer) putBy(ctx context.Context, d aiData, left time.Duration, why error) error {
	if d.noStore {
		return w.forgo(ctx, d, "busy")
	}
	return fmt.Errorf("%w: %w", why, stream.LaterBy(left))
}

// lead makes an answer, unless there turns out to be no need. The lease is held.
func (w *Warmer) lead(ctx context.Context, d aiData, lease cache.Lease) error {
	// Between the last look and the lease, another may have put the answer and
	// given its lease back.
	there, _, err := w.present(ctx, d)
	if err != nil || there {
		return errors.Join(err, w.giveBack(ctx, lease, "the answer is there"))
	}
	// Under the lease: who waits for an answer that is being made hears nothing of this.
	if err := w.notNow(d); err != nil {
		return w.putOff(ctx, d, lease, err)
	}
	wanted, failed, err := w.answers.Claim(ctx, d.scope, d.key, d.entry)
	switch {
	case err != nil:
		return errors.Join(unavailable(err), w.giveBack(ctx, lease, "the answer was not claimed"))
	case !wanted:
		if err := w.giveBack(ctx, lease, "the answer was forgotten"); err != nil {
			return err
		}
		return w.settle(ctx, d)
	case failed.Final: // somebody else asked just now
		// Whoever comes for it once that is forgotten is not to wait for what nobody makes.
		w.note("a question not noted that is refused", d.key, w.answers.NoteDropped(ctx, d.scope, d.key, givenUpFor, failed.Reason))
		if err := w.giveBack(ctx, lease, cache.AnswerRefused+failed.Reason); err != nil {
			return err
		}
		return w.drop(d, "refused")
	}
	if d.before, err = w.deferral(ctx, d, failed); err != nil {
		return errors.Join(unavailable(err), w.giveBack(ctx, lease, "the answer was not claimed"))
	}
	if left := d.before.Left; left > 0 {
		return w.putOff(ctx, d, lease, &notNowError{why: "the model has no time for this question", wait: left, alone: true})
	}
	if failed.Reason != "" {
		return errors.Join(fmt.Errorf("it was a moment ago that %s", failed.Reason), w.giveBack(ctx, lease, failed.Reason))
	}
	if err := w.answers.Lead(ctx, lease, d.entry, d.warm); err != nil {
		return errors.Join(unavailable(err), w.giveBack(ctx, lease, "the answer was not claimed"))
	}
	return w.make(ctx, d, lease)
}

// present reports whether the answer is there, and if so hands it to those who
// have just asked; and what time it is by Redis. An answer that only waits for Redis's
// restart to be confirmed is there: nothing but ai.forget, which comes again, could
// have made it wrong.
func (w *Warmer) present(ctx context.Context, d aiData) (bool, time.Time, error) {
	found, err := w.store.Read(ctx, cache.Query{View: w.o.View, Key: d.key})
	if err != nil {
		return false, time.Time{}, unavailable(err)
	}
	if found.Status == cache.Miss || found.Status == cache.Stale && found.Why == cache.WhyStale {
		return false, found.Now, nil
	}
	err = w.store.Announce(ctx, found.Entry)
	if errors.Is(err, cache.ErrRefused) {
		return false, found.Now, nil // it has been removed since
	}
	if err != nil {
		return false, found.Now, unavailable(err)
	}
	if !d.warm && d.deliveries <= 1 { // else nobody asked, or it was counted
		var answer cache.Answer
		_ = json.Unmarshal(found.Entry.Body, &answer) // of another release its tokens are not known
		w.account.HitOf(d.scope, d.model, answer.Usage)
	}
	w.o.Log.Debug().Str("key", d.key).Msg("answer is there already")
	return true, found.Now, w.settle(ctx, d)
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

// settle ends the waiting for an answer.
func (w *Warmer) settle(ctx context.Context, d aiData) error {
	if err := w.answers.Settle(ctx, d.scope, d.key); err != nil {
		return unavailable(err)
	}
	return nil
}

// unavailable is an error of Redis: no fault of the event's.
func unavailable(err error) error { return fmt.Errorf("%w: %w", err, stream.ErrPause) }
