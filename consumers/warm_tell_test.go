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
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

func asEvent(data string) event.Event {
	return event.Event{Type: event.AIRequested, Data: json.RawMessage(data), Time: time.Now()}
}

func answered(data string) event.Event {
	return event.Event{Type: event.AIAnswered, Data: json.RawMessage(data), Time: time.Unix(1760000000, 0)}
}

func forget(data string, at time.Time) event.Event {
	return event.Event{Type: event.AIForget, Data: json.RawMessage(data), Time: at}
}

// The subject alone says whose answers are to be forgotten.
func TestWarmForgetsASubject(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	if err := handle(t.Context(), warmer, answered(`{"scope":"user_1","prompt":"a title","text":"Brine"}`)); err != nil {
		t.Fatal(err)
	}
	if err := handle(t.Context(), warmer, event.Event{Type: event.AIForget, Subject: "user_1", Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, answer, err := w.read(w.key("user_1", "a title")); err == nil {
		t.Errorf("it was forgotten, and is %+v", answer)
	}
}

func TestWarmTakesTheAppsAnswer(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	key := w.key("user_1", "a title")
	err := handle(t.Context(), warmer, answered(`{"scope":"user_1","prompt":"a title","text":"Brine","model":"house","usage":{"total_tokens":7}}`))
	if err != nil {
		t.Fatal(err)
	}
	entry, answer, err := w.read(key)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Key != key || answer.Text != "Brine" || answer.Model != "house" || answer.FinishReason != "stop" ||
		answer.Usage.TotalTokens != 7 || answer.Created != 1760000000 || entry.Owner != "user_1" || !entry.Owned {
		t.Errorf("the answer of %q is %+v", entry.Owner, answer)
	}
	if err := handle(t.Context(), warmer, asked("user_1", "a title")); err != nil {
		t.Fatal(err)
	}
	if n := len(w.model.Calls()); n != 0 {
		t.Errorf("the model was called %d times", n)
	}
	// A newer one replaces it.
	if err := handle(t.Context(), warmer, answered(`{"scope":"user_1","prompt":"a title","text":"Kelp"}`)); err != nil {
		t.Fatal(err)
	}
	if _, answer, err := w.read(key); err != nil || answer.Text != "Kelp" || answer.Model != "test-model" {
		t.Errorf("the answer is %+v (%v)", answer, err)
	}
	w.everythingExpires()
}

// The app need not wait for a model that is being asked the same.
func TestWarmTakesTheAppsAnswerFirst(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Hold: make(chan struct{})} })
	asking, taking := w.warmer(), w.warmer()
	ended := make(chan error, 1)
	go func() { ended <- handle(t.Context(), asking, asked("user_1", "a title")) }()
	<-w.model.Arrived()
	if err := handle(t.Context(), taking, answered(`{"scope":"user_1","prompt":"a title","text":"Brine"}`)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, errLeaseLost) {
		t.Errorf("the one that asked ended with %v", err)
	}
	// Its event comes again and finds the answer.
	if err := handle(t.Context(), asking, asked("user_1", "a title")); err != nil {
		t.Fatal(err)
	}
	if _, answer, err := w.read(w.key("user_1", "a title")); err != nil || answer.Text != "Brine" {
		t.Errorf("the answer is %+v (%v)", answer, err)
	}
	if n := len(w.model.Calls()); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
}

func TestWarmForgetsAScope(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	keys := map[string][]string{}
	for _, scope := range []string{"user_1", "user_2"} {
		for _, text := range []string{"one", "two", "three"} {
			if err := handle(t.Context(), warmer, asked(scope, text)); err != nil {
				t.Fatal(err)
			}
			keys[scope] = append(keys[scope], w.key(scope, text))
		}
	}
	if err := handle(t.Context(), warmer, answered(`{"scope":"user_1","prompt":"four","text":"Brine"}`)); err != nil {
		t.Fatal(err)
	}
	keys["user_1"] = append(keys["user_1"], w.key("user_1", "four"))
	if ttl := w.client.PTTL(t.Context(), "mythic:ai_scope:{user_1}").Val(); ttl < time.Hour {
		t.Errorf("the index lives for %s, and answers for an hour", ttl)
	}
	for range 2 { // twice is harmless
		if err := handle(t.Context(), warmer, forget(`{"scope":"user_1"}`, time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range keys["user_1"] {
		if _, _, err := w.read(key); err == nil {
			t.Errorf("%s is still there", key)
		}
		if flow := w.client.XRange(t.Context(), "mythic:ai_flow:{"+key+"}", "-", "+").String(); strings.Contains(flow, "asked") {
			t.Errorf("what was told of it is still there: %s", flow)
		}
	}
	for _, key := range keys["user_2"] {
		if _, _, err := w.read(key); err != nil {
			t.Errorf("another's answer: %v", err)
		}
	}
	w.everythingExpires()
}

func TestWarmForgetsAKey(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	for _, text := range []string{"one", "two"} {
		if err := handle(t.Context(), warmer, asked("user_1", text)); err != nil {
			t.Fatal(err)
		}
	}
	before := asked("user_1", "one")
	if err := handle(t.Context(), warmer, forget(`{"key":"`+w.key("user_1", "one")+`"}`, before.Time.Add(time.Millisecond))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.read(w.key("user_1", "one")); err == nil {
		t.Error("the answer is still there")
	}
	if _, _, err := w.read(w.key("user_1", "two")); err != nil {
		t.Errorf("another answer: %v", err)
	}
	if err := handle(t.Context(), warmer, before); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.read(w.key("user_1", "one")); err == nil {
		t.Error("a question from before brought the answer back")
	}
}

// An answer that is being made when its scope is forgotten is not stored, and a
// question from before that comes late is not asked; a later one is.
func TestWarmForgetsWhatIsBeingMade(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	release := make(chan struct{})
	w.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Hold: release} })
	warmer, other := w.warmer(func(o *WarmerOptions) { o.LeaseFor, o.CallFor = 100*time.Second, 10*time.Second }), w.warmer()
	before := asked("user_1", "a title")
	ended := make(chan error, 1)
	go func() { ended <- handle(t.Context(), warmer, before) }()
	<-w.model.Arrived()
	at := before.Time.Add(5 * time.Millisecond)
	if err := handle(t.Context(), other, forget(`{"scope":"user_1"}`, at)); err != nil {
		t.Fatal(err)
	}
	close(release)
	// Whichever comes first: its flow is refused, or the answer itself.
	if err := <-ended; !errors.Is(err, cache.ErrRefused) && !errors.Is(err, errLeaseLost) {
		t.Errorf("the answer's event ended with %v", err)
	}
	if err := handle(t.Context(), warmer, before); err != nil {
		t.Errorf("the event came again: %v", err)
	}
	if err := handle(t.Context(), other, answered(`{"scope":"user_1","prompt":"a title","text":"Brine"}`)); err != nil {
		t.Errorf("the app's answer from before: %v", err)
	}
	key := w.key("user_1", "a title")
	if _, _, err := w.read(key); err == nil {
		t.Error("the answer is there")
	}
	answers := w.store.NewAnswers(w.view)
	if state, err := answers.Asked(t.Context(), "user_1", key); err != nil || state != (cache.Asked{}) {
		t.Errorf("who asked is told %+v (%v)", state, err)
	}
	after := before
	after.Time = at.Add(5 * time.Millisecond)
	if err := handle(t.Context(), other, after); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.read(key); err != nil {
		t.Errorf("a later question: %v", err)
	}
	if n := len(w.model.Calls()); n != 2 {
		t.Errorf("the model was called %d times", n)
	}
}

// Through the stream the order is that of the entries, whatever times they carry.
func TestWarmForgetsInTheOrderOfTheStream(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if c.Number == 1 {
			return modelserver.Reply{Status: 500}
		}
		return modelserver.Reply{}
	})
	// It fails once, so that it waits in the park when the scope is forgotten.
	w.run(w.warmer(), func(o *stream.SubscriberOptions) { o.Backoff = 2 * time.Second })
	early := asked("user_1", "a title")
	early.Time = time.Now().Add(time.Hour)
	w.publish(early)
	testserver.Eventually(t, "the question is parked", func() error {
		states, err := stream.Groups(t.Context(), w.client, w.keys, []string{event.TopicAI})
		if err != nil || len(states) != 1 || states[0].Parked != 1 {
			return errors.Join(errNotYet, err)
		}
		return nil
	})
	w.publish(forget(`{"scope":"user_1"}`, time.Now()))
	testserver.Eventually(t, "all is done", w.settled)
	if n := len(w.model.Calls()); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
	if _, _, err := w.read(w.key("user_1", "a title")); err == nil {
		t.Error("the answer is there")
	}
}

func TestWarmRejectsData(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	for _, c := range []struct{ name, kind, data, subject string }{
		{"nothing", event.AIRequested, ``, ""},
		{"no object", event.AIRequested, `[]`, ""},
		{"no scope", event.AIRequested, `{"prompt":"p"}`, ""},
		{"a scope that is none", event.AIRequested, `{"scope":1,"prompt":"p"}`, ""},
		{"nothing asked", event.AIRequested, `{"scope":"s"}`, ""},
		{"asked twice", event.AIRequested, `{"scope":"s","prompt":"p","request":{}}`, ""},
		{"no messages", event.AIRequested, `{"scope":"s","request":{"model":"m"}}`, ""},
		{"no answer", event.AIAnswered, `{"scope":"s","prompt":"p"}`, ""},
		{"an answer of parts", event.AIAnswered, `{"scope":"s","prompt":"p","text":[]}`, ""},
		{"odd usage", event.AIAnswered, `{"scope":"s","prompt":"p","text":"t","usage":"much"}`, ""},
		{"forget nothing", event.AIForget, `{}`, ""},
		{"forget two things", event.AIForget, `{"scope":"s","key":"` + w.key("s", "p") + `"}`, ""},
		{"forget no key", event.AIForget, `{"key":"k"}`, ""},
		{"another type", "ai.dreamt", `{"scope":"s","prompt":"p"}`, "s"},
	} {
		t.Run(c.name, func(t *testing.T) { //nolint:tparallel // they take microseconds, and what follows looks at all of them
			err := handle(t.Context(), warmer, event.Event{Type: c.kind, Subject: c.subject, Data: json.RawMessage(c.data)})
			if !errors.Is(err, stream.ErrReject) {
				t.Errorf("the error is %v", err)
			}
		})
	}
	if n := len(w.model.Calls()); n != 0 {
		t.Errorf("the model was called %d times", n)
	}
}
