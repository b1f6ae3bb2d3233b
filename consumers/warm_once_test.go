package consumers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// However often a slow question is asked, others have places, and what is to be forgotten
// waits for nobody, were all of them taken.
func TestWarmHoldsNoPlaces(t *testing.T) {
	t.Parallel()
	const places = 4
	w := newWarmth(t)
	release := make(chan struct{})
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if strings.HasPrefix(c.Prompt, "slow") {
			return modelserver.Reply{Hold: release}
		}
		return modelserver.Reply{}
	})
	few := func(o *stream.SubscriberOptions) { o.InFlight = places }
	warmer, other := w.warmer(), w.warmer()
	w.runHalf("warm", warmer.Ask, few)
	w.runHalf("warm", other.Ask, few)
	w.runHalf("invalidate", warmer.Tell, few)
	heard := w.listen().Wait(w.view.Name, w.key("u1", "slow"))
	defer heard.Cancel()
	for range 20 * places {
		w.publish(asked("u1", "slow"))
	}
	<-w.model.Arrived()
	w.publish(asked("u2", "quick"))
	testserver.Eventually(t, "another's question is answered", func() error {
		_, _, err := w.read(w.key("u2", "quick"))
		return err
	})
	for i := range 2*places - 1 {
		w.publish(asked("u1", fmt.Sprint("slow ", i)))
	}
	for len(w.model.Calls()) < 2*places+1 { // with the quick one: all places are taken
		<-w.model.Arrived()
	}
	w.publish(event.Event{Type: event.AIForget, Subject: "u2", Time: time.Now()})
	testserver.Eventually(t, "the answer is forgotten", func() error {
		if _, _, err := w.read(w.key("u2", "quick")); err == nil {
			return errNotYet
		}
		return nil
	})
	close(release)
	if got := <-heard.C(); got.Outcome != cache.Accepted {
		t.Errorf("who waits hears %c: %s", got.Outcome, got.Reason)
	}
	testserver.Eventually(t, "all is done", w.settled)
	if n := len(w.model.Calls()); n != 2*places+1 {
		t.Errorf("the model was called %d times", n)
	}
	w.everythingExpires()
}

// A question that joined one which was forgotten, by an event between the two, is asked,
// though its own event was done long before.
func TestWarmAsksForWhoJoined(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if c.Number == 1 {
			return modelserver.Reply{Hold: make(chan struct{})}
		}
		return modelserver.Reply{Text: "after it"}
	})
	first := asked("user_1", "a title")
	between := forget(`{"scope":"user_1"}`, first.Time.Add(500*time.Millisecond))
	warmer, other := w.warmer(), w.warmer()
	ended := make(chan error, 1)
	go func() { ended <- handle(t.Context(), warmer, first) }()
	<-w.model.Arrived()
	for _, e := range []event.Event{oneMore(first), between} {
		if err := handle(t.Context(), other, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; !errors.Is(err, errLeaseLost) {
		t.Errorf("the first ended with %v", err)
	}
	if err := handle(t.Context(), other, first); err != nil { // it comes again
		t.Fatal(err)
	}
	if _, answer, err := w.read(w.key("user_1", "a title")); err != nil || answer.Text != "after it" {
		t.Errorf("the answer is %+v (%v)", answer, err)
	}
}

// once is a question whose answer nobody else may have.
func once(nonce string, at time.Time) event.Event {
	data := must(json.Marshal(map[string]any{"scope": "user_1", "prompt": "a title", "no_store": true, "nonce": nonce}))
	return event.Event{Type: event.AIRequested, Source: fromAPI, Data: data, Time: at}
}

// A question whose answer nobody else may have is not asked when nobody waits for it.
func TestWarmAsksOnceForSomebody(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	busyFor := modelserver.Reply{Status: 429, RetryAfter: 2 * time.Second}
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if c.Number == 1 {
			return busyFor
		}
		return modelserver.Reply{}
	})
	warmer := w.warmer()
	if err := handle(t.Context(), warmer, once("a", time.Now().Add(-onceAge-time.Second))); err != nil || dropped(t, warmer, "late") != 1 {
		t.Errorf("one that is late ends with %v", err)
	}
	w.run(warmer)
	w.publish(once("b", time.Now())) // the model is busy: whoever asked asks again
	testserver.Eventually(t, "it is done", func() error {
		if len(w.model.Calls()) == 0 {
			return errNotYet
		}
		return w.settled()
	})
	w.publish(once("c", time.Now())) // too early
	testserver.Eventually(t, "it is done", w.settled)
	if n := dropped(t, warmer, "busy"); n != 2 {
		t.Errorf("%v were dropped since the model was busy", n)
	}
	testserver.Eventually(t, "the pause is over", func() error {
		if warmer.pauses.left("test-model", time.Now()) > 0 {
			return errNotYet
		}
		return nil
	})
	w.publish(once("d", time.Now()))
	testserver.Eventually(t, "it is answered", func() error {
		if len(w.model.Calls()) < 2 {
			return errNotYet
		}
		return w.settled()
	})
	if n := len(w.model.Calls()); n != 2 {
		t.Errorf("the model was called %d times", n)
	}
}

// A model that is busy holds up no other, nor what is to be forgotten.
func TestWarmPausesAlone(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if c.Model == "busy" {
			return modelserver.Reply{Status: 429, RetryAfter: time.Minute}
		}
		return modelserver.Reply{}
	})
	of := func(model string) event.Event {
		return asEvent(`{"scope":"user_1","request":{"model":"` + model + `","messages":[{"role":"user","content":"a title"}]}}`)
	}
	warmer := w.warmer()
	w.run(warmer)
	w.publish(of("busy"))
	testserver.Eventually(t, "the pause begins", func() error {
		if warmer.pauses.left("busy", time.Now()) < 50*time.Second {
			return errNotYet
		}
		return nil
	})
	w.publish(of("fine"), event.Event{Type: event.AIForget, Subject: "user_2", Time: time.Now()})
	begun := time.Now()
	testserver.Eventually(t, "another model is asked, and another forgotten", func() error {
		if len(w.model.Calls()) < 2 || w.client.Exists(t.Context(), "mythic:ai_forgotten:{user_2}").Val() == 0 {
			return errNotYet
		}
		return nil
	})
	if left := warmer.pauses.left("busy", time.Now()); left == 0 || time.Since(begun) > 20*time.Second {
		t.Errorf("it took %s, and the pause has %s left", time.Since(begun), left)
	}
	for n := range 2 * maxPauses {
		warmer.pauses.extend(fmt.Sprint(n), time.Now(), time.Hour)
	}
	if n := len(warmer.pauses.of); n > maxPauses {
		t.Errorf("%d models are remembered", n)
	}
}

// What a provider says beside an error of one request is about that request.
func TestWarmPausesForNoFailure(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	status := 500
	w.model.Respond(func(modelserver.Call) modelserver.Reply {
		return modelserver.Reply{Status: status, RetryAfter: time.Minute}
	})
	warmer := w.warmer()
	for _, want := range []bool{false, true} {
		_ = handle(t.Context(), warmer, asked("user_1", fmt.Sprint("a title ", status)))
		if got := warmer.pauses.left("test-model", time.Now()) > 0; got != want {
			t.Errorf("after %d calls pause: %v", status, got)
		}
		status = 503
	}
}

// No prompt is left where nobody removes it: whoever asked knows how it ended, and
// another's dead letter names the answer alone.
func TestWarmLeavesNoPrompts(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if strings.HasSuffix(c.Prompt, "refused") {
			return modelserver.Reply{Status: 400}
		}
		return modelserver.Reply{Status: 500}
	})
	warmer := w.warmer()
	w.run(warmer, func(o *stream.SubscriberOptions) { o.Backoff = time.Millisecond })
	told, own := asked("user_1", "hush refused"), asked("user_1", "hush own")
	w.publish(told, own)
	apis := asked("user_2", "hush of another")
	apis.Source = fromAPI
	w.publish(apis)
	testserver.Eventually(t, "all are over", func() error {
		if len(w.dead()) == 0 {
			return errNotYet
		}
		return w.settled()
	})
	letters, err := stream.NewDeadLetters(w.client, w.keys).List(t.Context(), stream.Filter{})
	if err != nil || len(letters) != 1 {
		t.Fatalf("there are %d letters (%v)", len(letters), err)
	}
	l := letters[0]
	if l.Type != event.AIRequested || !strings.Contains(l.Fields["data"], w.key("user_1", "hush own")) || !strings.Contains(l.Reason, "status 500") {
		t.Errorf("the letter is %+v", l)
	}
	if text := fmt.Sprint(l); strings.Contains(text, "hush") || strings.Contains(text, "user_1") {
		t.Errorf("the letter tells too much: %s", text)
	}
	if n := dropped(t, warmer, "failed"); n != 1 {
		t.Errorf("%v were given up", n)
	}
}

// panicking is a model that panics, and says what it was asked.
type panicking struct{ Model }

func (panicking) Answer(_ context.Context, request json.RawMessage, _ func(cache.FlowPart)) (cache.Answer, error) {
	panic(string(request))
}

// Prompts are in no dead letter, whatever an event ends by; what is to be forgotten can be
// read there.
func TestWarmLeavesNoPromptsOfTheUnread(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer(func(o *WarmerOptions) { o.Model = panicking{o.Model} })
	w.run(warmer, func(o *stream.SubscriberOptions) { o.Backoff = time.Millisecond })
	ai := func(kind, data string) event.Event {
		return event.Event{Type: kind, Subject: "user_1", Time: time.Now(), Data: json.RawMessage(data)}
	}
	w.publish(
		ai(event.AIRequested, `{"request":{"messages":[{"role":"user","content":"hush"}],"n":2}}`), ai(event.AIAnswered, `{"prompt":"hush"}`),
		ai("ai.dreamt", `{"prompt":"hush"}`), ai(event.AIForget, `{"key":"k"}`), asked("user_1", "hush"),
	)
	testserver.Eventually(t, "all are dead", func() error {
		if len(w.dead()) < 5 {
			return errNotYet
		}
		return nil
	})
	letters, err := stream.NewDeadLetters(w.client, w.keys).List(t.Context(), stream.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	scope := sha256.Sum256([]byte("user_1"))
	for _, l := range letters {
		text, data := fmt.Sprint(l), l.Fields["data"]
		switch {
		case l.Type == event.AIForget:
			if data != `{"key":"k"}` {
				t.Errorf("of what is to be forgotten the letter tells %s", data)
			}
		case strings.Contains(text, "hush") || strings.Contains(text, "user_1") || !strings.Contains(data, hex.EncodeToString(scope[:])):
			t.Errorf("the letter is %s", text)
		}
	}
	if log := w.log.String(); strings.Contains(log, "hush") || !strings.Contains(log, "handler panicked: a string") {
		t.Errorf("the log is %s", log)
	}
}

// An answer is kept when the model came to its end by itself, and said something.
func TestWarmKeepsWhatCameToItsEnd(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	replies := map[string]modelserver.Reply{
		"error": {Text: "half an", FinishReason: "error"}, "insufficient_system_resource": {Text: "half an", FinishReason: "insufficient_system_resource"},
		"max_tokens": {Text: "half an", FinishReason: "max_tokens"}, "nothing": {Malformed: `{"id":"x","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}`},
		"function": {Malformed: `{"id":"x","choices":[{"index":0,"delta":{"function_call":{"name":"f","arguments":"{}"}},"finish_reason":"function_call"}]}`},
		"whole":    {Text: "the end"},
	}
	for name, delta := range map[string]string{
		"nulls": `"reasoning_content":null,"function_call":null,"tool_calls":null`, "empty": `"reasoning_content":"","annotations":[],"tool_calls":[]`,
		"reasoning": `"reasoning_content":"Let me see."`, "spoken": `"audio":{"id":"a","data":"AA=="}`,
		"calls": `"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]`,
	} {
		replies[name] = modelserver.Reply{Malformed: `{"id":"x","choices":[{"index":0,"delta":{"content":"",` + delta + `},"finish_reason":"stop"}]}`}
	}
	kept := []string{"whole", "function", "spoken", "calls"}
	w.model.Respond(func(c modelserver.Call) modelserver.Reply { return replies[c.Prompt] })
	warmer := w.warmer()
	life := func(prompt string) time.Duration {
		return w.client.PTTL(t.Context(), "mythic:ai_answer:{"+w.key("user_1", prompt)+"}").Val()
	}
	for prompt := range replies {
		if err := handle(t.Context(), warmer, asked("user_1", prompt)); err != nil {
			t.Errorf("%s: %v", prompt, err)
		}
		if is := life(prompt) > handOver; is != slices.Contains(kept, prompt) {
			t.Errorf("%s: the answer lives for %s", prompt, life(prompt))
		}
	}
	err := handle(t.Context(), warmer, answered(`{"scope":"user_1","prompt":"own","text":"Brine","finish_reason":"by hand"}`))
	if err != nil || life("own") <= handOver {
		t.Errorf("what the app brings lives for %s (%v)", life("own"), err)
	}
}
