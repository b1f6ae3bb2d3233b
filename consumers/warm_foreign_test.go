package consumers

import (
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/producers/event"
)

// A question whose answer is expected under another key than this worker would put it is not
// asked. Who waits is told, unless somebody makes the answer meanwhile; and so is the log,
// once.
func TestWarmAsksNothingForOtherSettings(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer, answers := w.warmer(), w.store.NewAnswers(w.view)
	theirs, _, err := cache.AnswerKey("llm.example/v1", "user_1", []byte(`{"messages":[{"role":"user","content":"a title"}],"model":"test-model"}`))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(awaits, more string) event.Event {
		data := `{"scope":"user_1","prompt":"a title","awaits":"` + awaits + `"` + more + `}`
		return event.Event{Type: event.AIRequested, Source: fromAPI, Data: []byte(data), Time: time.Now()}
	}
	foreign := func(e event.Event, want float64) {
		t.Helper()
		if err := handle(t.Context(), warmer, e); err != nil {
			t.Errorf("it ends with %v", err)
		}
		if n := dropped(t, warmer, "foreign"); n != want {
			t.Errorf("%v were left, not %v", n, want)
		}
	}
	lease, err := w.store.Lease(t.Context(), w.view, theirs, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := answers.Ask(t.Context(), "user_1", theirs); err != nil {
		t.Fatal(err)
	}
	waiters := w.listen()
	heard := waiters.Wait(w.view.Name, theirs)
	defer heard.Cancel()
	foreign(ask(theirs, ""), 1)
	if state, err := answers.Asked(t.Context(), "user_1", theirs); err != nil || !state.Pending {
		t.Errorf("while it is made, who asked is told %+v (%v)", state, err)
	}
	if err := w.store.Abandon(t.Context(), lease, "no"); err != nil {
		t.Fatal(err)
	}
	if got := <-heard.C(); got.Reason != "no" {
		t.Errorf("while it is made, who waits is told %q", got.Reason)
	}
	foreign(ask(theirs, `,"warm":true`), 2)
	if state, err := answers.Asked(t.Context(), "user_1", theirs); err != nil || !state.Pending {
		t.Errorf("of what nobody waits for, who asked is told %+v (%v)", state, err)
	}
	foreign(ask(theirs, ""), 3)
	if after, why, ok := busy(<-heard.C()); !ok || after != givenUpFor || !strings.Contains(why, "another model") {
		t.Errorf("who waits is told %s, %q, %v", after, why, ok)
	}
	if state, err := answers.Asked(t.Context(), "user_1", theirs); err != nil || !strings.Contains(state.Dropped, "another model") {
		t.Errorf("who asked is told %+v (%v)", state, err)
	}
	if n := len(w.model.Calls()); n != 0 {
		t.Errorf("the model was called %d times", n)
	}
	foreign(ask(w.key("user_1", "a title"), ""), 3)
	if _, answer, err := w.read(w.key("user_1", "a title")); err != nil || answer.Text == "" {
		t.Errorf("its own is answered %+v (%v)", answer, err)
	}
	own := ask(theirs, `,"no":1`) // the app's own is answered, whatever it says of itself
	own.Source = "books"
	foreign(own, 3)
	if log := w.log.String(); strings.Count(log, "is for another provider") != 1 || !strings.Contains(log, "LLM_BASE_URL") || strings.Contains(log, `"a title`) {
		t.Errorf("the log says %s", log)
	}
	if s := (strange{said: time.Now()}); s.due(time.Now().Add(strangeEvery-time.Second)) || !s.due(time.Now().Add(strangeEvery)) {
		t.Error("it is not said again when it goes on")
	}
	w.everythingExpires()
}
