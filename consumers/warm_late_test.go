package consumers

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// What an API process asked is not asked when nobody can hear of it any more, unless
// somebody has joined it since. The app's own questions wait for as long as it takes.
func TestWarmAsksNothingForWhoLeft(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	warmer.pauses.extend("test-model", time.Now(), time.Minute)
	try := func(what, source string, age time.Duration, late bool) {
		t.Helper()
		e := asked("user_1", "a title")
		e.Source, e.Time = source, e.Time.Add(-age)
		before := dropped(t, warmer, "late")
		err := handle(t.Context(), warmer, e)
		if is := dropped(t, warmer, "late") > before; is != late || errors.Is(err, stream.ErrLater) == late {
			t.Errorf("%s: it is late: %v (%v)", what, is, err)
		}
	}
	try("a new one", fromAPI, 0, false)
	try("one that may be heard of", fromAPI, askAge-time.Minute, false)
	try("one of long ago", fromAPI, askAge+time.Minute, true)
	try("the app's", "books", 5*time.Hour, false)

	key, answers := w.key("user_1", "a title"), w.store.NewAnswers(w.view)
	lease, err := w.store.Lease(t.Context(), w.view, key, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	id := func(age time.Duration) string { return strconv.FormatInt(time.Now().Add(-age).UnixMilli(), 10) + "-0" }
	if err := answers.Lead(t.Context(), lease, id(askAge+time.Minute), false); err != nil {
		t.Fatal(err)
	}
	if joined, err := answers.Join(t.Context(), key, id(time.Minute), false, false); !joined || err != nil {
		t.Fatal(joined, err)
	}
	if err := w.store.Abandon(t.Context(), lease, "no"); err != nil {
		t.Fatal(err)
	}
	try("one that somebody joined", fromAPI, askAge+time.Minute, false)
	if err := answers.EndLine(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	try("one whose line has ended", fromAPI, askAge+time.Minute, true)
	if n := len(w.model.Calls()); n != 0 {
		t.Errorf("the model was called %d times", n)
	}
}

// Of what waited for a worker, nothing is asked that an API process has asked for somebody
// who is gone; but what others have joined, or the app itself.
func TestWarmCallsForNobodyWhoLeft(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer, answers := w.warmer(), w.store.NewAnswers(w.view)
	ask := func(prompt, source string, age time.Duration, late bool) {
		t.Helper()
		e := asked("user_1", prompt)
		e.Source, e.Time = source, time.Now().Add(-age)
		before, calls := dropped(t, warmer, "late"), len(w.model.Calls())
		if err := handle(t.Context(), warmer, e); err != nil {
			t.Errorf("%s ends with %v", prompt, err)
		}
		if is := dropped(t, warmer, "late") > before; is != late || (len(w.model.Calls()) == calls) != late {
			t.Errorf("%s: it is late: %v, and %d calls were made", prompt, is, len(w.model.Calls())-calls)
		}
	}
	ask("young", fromAPI, askAge-time.Minute, false)
	ask("old", fromAPI, askAge+time.Minute, true)
	ask("old", "books", 5*time.Hour, false)
	for prompt, c := range map[string]struct {
		joined  time.Duration
		durable bool
		late    bool
	}{
		"joined by who waits":   {time.Minute, false, false},
		"joined by who is gone": {askAge + time.Minute, false, true},
		"joined by the app":     {5 * time.Hour, true, false},
	} {
		key := w.key("user_1", prompt)
		lease, err := w.store.Lease(t.Context(), w.view, key, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		id := func(age time.Duration) string { return strconv.FormatInt(time.Now().Add(-age).UnixMilli(), 10) + "-0" }
		if err := answers.Lead(t.Context(), lease, id(6*time.Hour), false); err != nil {
			t.Fatal(err)
		}
		if joined, err := answers.Join(t.Context(), key, id(c.joined), false, c.durable); !joined || err != nil {
			t.Fatal(joined, err)
		}
		if err := w.store.Abandon(t.Context(), lease, "no"); err != nil {
			t.Fatal(err)
		}
		ask(prompt, fromAPI, 6*time.Hour, c.late)
	}
	if left := w.lines(); len(left) > 0 {
		t.Errorf("lines are left: %q", left)
	}
}

// What is late leaves to others what is told of the same answer.
func TestWarmIsLateForItself(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	key, answers := w.key("user_1", "a title"), w.store.NewAnswers(w.view)
	if err := answers.Ask(t.Context(), "user_1", key); err != nil {
		t.Fatal(err)
	}
	lease, err := w.store.Lease(t.Context(), w.view, key, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := answers.Lead(t.Context(), lease, "1000-0", false); err != nil {
		t.Fatal(err)
	}
	late := event.Event{Type: event.AIRequested, Time: time.Now().Add(-time.Hour), Data: asked("user_1", "a title").Data}
	late.Data = json.RawMessage(strings.Replace(string(late.Data), `{`, `{"warm":true,`, 1))
	if err := handle(t.Context(), warmer, late); err != nil || dropped(t, warmer, "late") != 1 {
		t.Errorf("it ends with %v", err)
	}
	if state, err := answers.Asked(t.Context(), "user_1", key); err != nil || !state.Pending || len(w.lines()) != 1 {
		t.Errorf("who asked is told %+v, and lines are %q (%v)", state, w.lines(), err)
	}
	if err := w.store.Abandon(t.Context(), lease, "no"); err != nil {
		t.Fatal(err)
	}
	if err := handle(t.Context(), warmer, late); err != nil || len(w.lines()) != 0 {
		t.Errorf("then it ends with %v, and lines are %q", err, w.lines())
	}
}
