package consumers

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// lines returns the lines that there are.
func (w *warmth) lines() []string {
	w.t.Helper()
	names, err := w.client.Keys(w.t.Context(), "mythic:ai_line:*").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

// Of a question that is refused, or given up, nothing stays but word for who asked.
func TestWarmEndsWhatFails(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if c.Prompt == "refused" {
			return modelserver.Reply{Status: 400}
		}
		return modelserver.Reply{Status: 500}
	})
	answers := w.store.NewAnswers(w.view)
	for _, prompt := range []string{"refused", "given up"} {
		if err := answers.Ask(t.Context(), "user_1", w.key("user_1", prompt)); err != nil {
			t.Fatal(err)
		}
	}
	waiters := w.listen()
	heard := waiters.Wait(w.view.Name, w.key("user_1", "given up"))
	defer heard.Cancel()
	warmer := w.warmer()
	w.run(warmer, func(o *stream.SubscriberOptions) { o.Backoff = time.Millisecond })
	refused, given, ahead := asked("user_1", "refused"), asked("user_1", "given up"), asked("user_2", "ahead")
	refused.Source, given.Source = fromAPI, fromAPI
	ahead.Data = json.RawMessage(strings.Replace(string(ahead.Data), `{`, `{"warm":true,`, 1))
	w.publish(refused, given, ahead, once("a", time.Now()))
	testserver.Eventually(t, "all are over", func() error {
		if dropped(t, warmer, "failed") < 3 {
			return errNotYet
		}
		return w.settled()
	})
	if left := w.lines(); len(left) > 0 {
		t.Errorf("lines are left: %q", left)
	}
	state, err := answers.Asked(t.Context(), "user_1", w.key("user_1", "given up"))
	if err != nil || state.Pending || !strings.Contains(state.Dropped, "too often") || state.After <= 0 || state.After > givenUpFor {
		t.Errorf("who asked is told %+v (%v)", state, err)
	}
	if state, err := answers.Asked(t.Context(), "user_1", w.key("user_1", "refused")); err != nil || state.Refused == "" {
		t.Errorf("who asked what was refused is told %+v (%v)", state, err)
	}
	for got := range heard.C() {
		if strings.HasPrefix(got.Reason, cache.AnswerBusy) {
			break
		}
	}
	w.everythingExpires()
}

// A question of the app's that has joined one which is given up ends in a dead letter.
func TestWarmOwesALetter(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	release := make(chan struct{})
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if c.Number == 1 {
			return modelserver.Reply{Hold: release, Status: 500}
		}
		return modelserver.Reply{Status: 500}
	})
	warmer := w.warmer()
	w.run(warmer, func(o *stream.SubscriberOptions) { o.Backoff = time.Millisecond })
	users := asked("user_1", "a title")
	users.Source = fromAPI
	w.publish(users)
	<-w.model.Arrived()
	w.publish(asked("user_1", "a title"))
	testserver.Eventually(t, "the app's has joined", func() error {
		if w.client.HGet(t.Context(), "mythic:ai_line:{"+w.key("user_1", "a title")+"}", "d").Val() != "1" {
			return errNotYet
		}
		return nil
	})
	close(release)
	testserver.Eventually(t, "it is given up", func() error {
		if dropped(t, warmer, "failed") == 0 {
			return errNotYet
		}
		return w.settled()
	})
	if dead := w.dead(); len(dead) != 1 || strings.Contains(dead[0], "a title") {
		t.Errorf("dead letters: %q", dead)
	}
	if left := w.lines(); len(left) > 0 {
		t.Errorf("lines are left: %q", left)
	}
	w.everythingExpires()
}

// What was given up says nothing of the same question when somebody has it answered.
func TestWarmGivesUpForItself(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	e := asked("user_1", "a title")
	e.Source = fromAPI
	d, err := warmer.read(e, "1000-0")
	if err != nil {
		t.Fatal(err)
	}
	d.deliveries = mostTries
	answers := w.store.NewAnswers(w.view)
	lease, err := w.store.Lease(t.Context(), w.view, d.key, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(answers.Ask(t.Context(), "user_1", d.key), answers.Lead(t.Context(), lease, "1001-0", false)); err != nil {
		t.Fatal(err)
	}
	if err := warmer.conclude(e, d, errNotYet); err != nil {
		t.Error(err)
	}
	if state, err := answers.Asked(t.Context(), "user_1", d.key); err != nil || !state.Pending || len(w.lines()) != 1 {
		t.Errorf("who asked is told %+v, and lines are %q (%v)", state, w.lines(), err)
	}
	if err := w.store.Abandon(t.Context(), lease, "no"); err != nil {
		t.Fatal(err)
	}
	if err := warmer.conclude(e, d, errNotYet); err != nil {
		t.Error(err)
	}
	if state, err := answers.Asked(t.Context(), "user_1", d.key); err != nil || state.Dropped == "" || len(w.lines()) != 0 {
		t.Errorf("then who asked is told %+v, and lines are %q (%v)", state, w.lines(), err)
	}
	if n := dropped(t, warmer, "failed"); n != 2 {
		t.Errorf("%v were given up", n)
	}
}
