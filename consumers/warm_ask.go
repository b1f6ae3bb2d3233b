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

// ask sees to it that an answer stands. One event of a key is first in this
// process; the others wait for what becomes of it, and share its failure.
func (w *Warmer) ask(ctx context.Context, d aiData) error {
	for {
		q, first := w.lines.join(d.key, d.warm)
		if first {
			return w.first(ctx, d, q)
		}
		select {
		case <-q.done:
		case <-ctx.Done():
			return later("%w", ctx.Err())
		}
		if q.err != nil && q.warm && !d.warm {
			continue // nobody waited for that one, so it was given less than this one is
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
		if d.late(time.Now()) {
			return w.drop(d, "late")
		}
		if left := w.pause.left(time.Now()); left > 0 {
			w.tellBusy(ctx, d, left, "the model wants no calls")
			return later("the model wants no calls for %s", left.Round(time.Millisecond))
		}
		if left := w.breakers.left(d.model, time.Now()); left > 0 {
			w.tellBusy(ctx, d, left, "the model has failed too often")
			return fmt.Errorf("the model has failed too often, and is left alone for %s: %w", left.Round(time.Millisecond), stream.ErrLater)
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
	if !d.warm { // nobody asked, so nothing was saved
		var answer cache.Answer
		_ = json.Unmarshal(found.Entry.Body, &answer) // of another release its tokens are not known
		w.account.HitOf(d.scope, answer.Model, answer.Usage)
	}
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

// settle ends the waiting for an answer.
func (w *Warmer) settle(ctx context.Context, d aiData) error {
	if err := w.answers.Settle(ctx, d.scope, d.key); err != nil {
		return unavailable(err)
	}
	return nil
}

// unavailable is an error of Redis: no fault of the event's.
func unavailable(err error) error { return fmt.Errorf("%w: %w", err, stream.ErrPause) }
