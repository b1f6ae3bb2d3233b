package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"mythiccache/cache"
	"mythiccache/producers/event"
)

// readAnswer reads the answer that the app brings.
func (d *aiData) readAnswer(fields map[string]json.RawMessage, e event.Event) error {
	if _, ok := fields["text"]; !ok {
		return fmt.Errorf("%w: there is no text", cache.ErrRequest)
	}
	d.answer = cache.Answer{Key: d.key, Model: d.model, FinishReason: "stop", Created: e.Time.Unix(), Brought: true}
	if e.Time.IsZero() {
		d.answer.Created = time.Now().Unix()
	}
	err := errors.Join(
		takeText(fields, "text", &d.answer.Text),
		takeText(fields, "model", &d.answer.Model),
		takeText(fields, "finish_reason", &d.answer.FinishReason),
	)
	if err != nil {
		return err
	}
	if usage, ok := fields["usage"]; ok {
		if err := json.Unmarshal(usage, &d.answer.Usage); err != nil {
			return fmt.Errorf("%w: usage does not count tokens", cache.ErrRequest)
		}
	}
	return nil
}

// take stores an answer that the app brings. It replaces what is there and what
// is being made: a worker that waits for the model loses its lease and stops.
func (w *Warmer) take(ctx context.Context, d aiData) error {
	lease, err := w.store.Lease(ctx, w.o.View, d.key, w.o.LeaseFor)
	if errors.Is(err, cache.ErrLeased) {
		if err := w.remove(ctx, d.key); err != nil {
			return err
		}
		lease, err = w.store.Lease(ctx, w.o.View, d.key, w.o.LeaseFor)
	}
	if errors.Is(err, cache.ErrLeased) {
		return later("another is first to the answer")
	}
	if err != nil {
		return unavailable(err)
	}
	wanted, _, err := w.answers.Claim(ctx, d.scope, d.key, d.entry)
	if err != nil {
		return errors.Join(unavailable(err), w.giveBack(ctx, lease, "the answer was not claimed"))
	}
	if !wanted {
		if err := w.giveBack(ctx, lease, "the answer was forgotten"); err != nil {
			return err
		}
		return w.settle(ctx, d)
	}
	if err := w.put(ctx, d, lease, d.answer, 0); err != nil {
		return err
	}
	w.o.Log.Debug().Str("key", d.key).Msg("answer taken from the app")
	return nil
}

// readForget reads what is to be forgotten: a scope, or one answer.
func (d *aiData) readForget(fields map[string]json.RawMessage, e event.Event) error {
	if err := takeText(fields, "key", &d.key); err != nil {
		return err
	}
	if d.scope == "" && d.key == "" {
		d.scope = e.Subject
	}
	switch {
	case (d.scope == "") == (d.key == ""):
		return fmt.Errorf("%w: either a scope or a key is to be forgotten", cache.ErrRequest)
	case d.key != "" && !cache.IsAnswerKey(d.key):
		return fmt.Errorf("%w: key is not that of an answer", cache.ErrRequest)
	case len(d.scope) > cache.MaxScope:
		return fmt.Errorf("%w: scope is too long", cache.ErrRequest)
	}
	return nil
}

// forget removes a scope's answers, or one answer, and keeps those out that are
// being made or wait to be. See cache.Answers for the order of things.
func (w *Warmer) forget(ctx context.Context, d aiData) error {
	keys := []string{d.key}
	if d.scope != "" {
		var err error
		if keys, err = w.answers.Forget(ctx, d.scope, d.entry); err != nil {
			return unavailable(err)
		}
		if err := w.store.ForgetCosts(ctx, d.scope); err != nil {
			return unavailable(err)
		}
	} else if err := w.answers.ForgetKey(ctx, d.key, d.entry); err != nil {
		return unavailable(err)
	}
	if err := w.remove(ctx, keys...); err != nil {
		return err
	}
	// Now that nobody holds a lease, nobody adds to a flow.
	if err := w.answers.Erase(ctx, keys...); err != nil {
		return unavailable(err)
	}
	w.o.Log.Info().Int("answers", len(keys)).Msg("answers forgotten")
	return nil
}

// remove removes answers, and the leases of those who make them.
func (w *Warmer) remove(ctx context.Context, keys ...string) error {
	changes := make([]cache.Change, len(keys))
	for i, key := range keys {
		changes[i] = cache.Change{View: w.o.View, Key: key}
	}
	if len(changes) == 0 {
		return nil
	}
	if _, err := w.store.Invalidate(ctx, changes); err != nil {
		return unavailable(err)
	}
	return nil
}
