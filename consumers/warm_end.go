package consumers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"mythiccache/cache"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// How often a question is asked that fails: as often as the stream delivers an event.
// One whose answer nobody else may have is asked while somebody waits for it, which is
// for a quarter of a minute after its first failure; the fifth time would be later.
const (
	mostTries     = 8
	mostTriesOnce = 4
)

// fromAPI is the source of events whose askers are told themselves how they ended.
const fromAPI = "api"

// conclude decides what a failure leaves of a question. Prompts are not to rest where
// nobody removes them, and callers are not to fill Redis with what fails:
//
//   - what failed for the last time is done where whoever asked has heard of it each time,
//     or nobody waits. It is counted;
//   - what an API process asked is not put off for longer than its asker can hear of it;
//   - another's dead letter tells which answer could not be made, and not what was asked.
//     So does that of a question which another's has joined.
func (w *Warmer) conclude(e event.Event, d aiData, err error) error {
	if e.Source == fromAPI && errors.Is(err, stream.ErrLater) {
		return w.stay(d, err)
	}
	if err == nil || errors.Is(err, stream.ErrPause) {
		return err
	}
	most := mostTries
	if d.noStore {
		most = mostTriesOnce
	}
	if d.deliveries >= most && !d.durable {
		w.o.Log.Debug().Err(err).Str("key", d.key).Msg("question given up")
		owed, failed := w.resign(d)
		if failed != nil || !owed {
			return failed
		}
	}
	return stream.InStead(err, bare(e, d)...)
}

// askAge is how old a question of an API process may become that is not asked yet: as long
// as it counts as asked for. Who looks for it later is told that there is none.
const askAge = 10 * time.Minute

// stay has a question of an API process come back, unless it was put off for too long.
func (w *Warmer) stay(d aiData, putOff error) error {
	ctx, cancel := afterwards(context.Background())
	defer cancel()
	switch late, err := w.late(ctx, d, time.Now()); {
	case err != nil:
		return err
	case late:
		return w.outlive(ctx, d)
	}
	return putOff
}

// outlive drops a question that has become too old. Others' askers may wait for the same
// answer, so what they are told stays as it is: the mark of this one's runs out by itself.
func (w *Warmer) outlive(ctx context.Context, d aiData) error {
	if d.noStore {
		return w.forgo(ctx, d, "late")
	}
	found, err := w.store.Inspect(ctx, w.o.View, d.key)
	if err == nil && found.Holder == "" {
		err = w.answers.EndLine(ctx, d.key)
	}
	if err != nil {
		return unavailable(err)
	}
	return w.drop(d, "late")
}

// givenUpFor is how long who looks for an answer is told that its question was given up,
// unless somebody asks anew.
const givenUpFor = 30 * time.Second

// resign drops a question that has failed for the last time, and leaves nothing of it but
// word for who asked. Where somebody else's is being made by now, word is for that to give.
// It reports whether one of the app's own has joined it, for which a dead letter is owed.
func (w *Warmer) resign(d aiData) (owed bool, err error) {
	ctx, cancel := afterwards(context.Background())
	defer cancel()
	found, err := w.store.Inspect(ctx, w.o.View, d.key)
	if err == nil && found.Holder == "" {
		_, owed, err = w.answers.Line(ctx, d.key, d.entry)
	}
	switch {
	case err != nil || found.Holder != "":
	case d.noStore:
		err = w.answers.Settle(ctx, d.scope, d.key)
	case d.warm:
		err = w.answers.EndLine(ctx, d.key)
	default:
		const why = "the model has failed too often at it"
		err = errors.Join(w.answers.Drop(ctx, d.scope, d.key, givenUpFor, why),
			w.store.AnnounceFailure(ctx, w.o.View.Name, d.key, nil, cache.BusyReason(givenUpFor, why)))
	}
	if err != nil {
		return false, unavailable(err)
	}
	return owed, w.drop(d, "failed")
}

// bare is what the dead letter of a question holds.
func bare(e event.Event, d aiData) []string {
	scope := sha256.Sum256([]byte(d.scope))
	data, err := json.Marshal(struct {
		Key   string `json:"key"`
		Scope string `json:"scope_sha256"`
	}{d.key, hex.EncodeToString(scope[:])})
	if err != nil {
		panic(err) // it is made of texts
	}
	return event.Event{ID: e.ID, Type: e.Type, Source: e.Source, Time: e.Time, Data: data, Traceparent: e.Traceparent}.Fields()
}

// forgo drops a question for which nobody waits any more.
func (w *Warmer) forgo(ctx context.Context, d aiData, why string) error {
	if err := w.settle(ctx, d); err != nil {
		return err
	}
	return w.drop(d, why)
}

// onceAge is how old a question may become whose answer nobody else may have: as long as
// an API process waits for it.
const onceAge = 2*time.Minute + 15*time.Second
