package consumers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"mythiccache/cache/version"
	"mythiccache/producers/event"
)

// How far back the events of a key are looked for, in each stream, and how many of
// them are told.
const (
	eventsLooked = 500
	eventsTold   = 5
)

// tell logs a violation: what it takes to find out what went wrong, and nothing of
// what the values say.
func (a *Auditor) tell(ctx context.Context, s *suspicion, dropped bool) {
	events, err := a.eventsOf(ctx, s)
	if err != nil {
		events = []string{"not known: " + err.Error()}
	}
	e := &s.sight
	a.o.Log.Error().Str("view", s.View).Str("key", s.Key).Str("why", s.Why).
		Str("cached_sha256", digest(!e.Negative, e.Body)).Str("truth_sha256", digest(e.truth.Found, e.truth.Body)).
		Str("cached_snapshot", spell(e.Snapshot)).Str("truth_snapshot", spell(e.truth.Snapshot)).
		Time("cached_at", e.Saved.UTC()).Strs("events", events).Bool("dropped", dropped).
		Msg("the cache was wrong: an entry differs from PostgreSQL and nothing was on its way to mend it")
}

// eventsOf returns the last events of a key or its whole view that the streams hold.
func (a *Auditor) eventsOf(ctx context.Context, s *suspicion) ([]string, error) {
	var found []string
	for _, m := range s.view.Tables {
		entries, err := a.store.Client().XRevRangeN(ctx, a.road.Keys.Topic(m.Topic()), "+", "-", eventsLooked).Result()
		if err != nil {
			return nil, fmt.Errorf("look for the events of %s: %w", s.View, err)
		}
		told := 0
		for _, entry := range entries {
			field := func(name string) string { text, _ := entry.Values[name].(string); return text }
			subject := field(event.FieldSubject)
			if field(event.FieldView) != s.View || subject != "" && subject != s.Key {
				continue
			}
			found = append(found, fmt.Sprintf("%s %s at %s", field(event.FieldType), entry.ID, field(event.FieldVersion)))
			if told++; told == eventsTold {
				break
			}
		}
	}
	return slices.Clip(found), nil
}

// digest stands for a value that nobody is to read in a log.
func digest(found bool, body []byte) string {
	if !found {
		return "absent"
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func spell(s version.Snapshot) string { return fmt.Sprintf("%s of epoch %d", s, s.Epoch) }
