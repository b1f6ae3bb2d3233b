package consumers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
)

// flows runs what follows answers until the test ends.
func (w *warmth) flows() *cache.Flows {
	w.t.Helper()
	flows := w.store.NewFlows()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- flows.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-ended })
	return flows
}

// piece reads the next piece of an answer.
func (w *warmth) piece(r *cache.FlowReader) cache.FlowPiece {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	p, err := r.Next(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// What the model says is told as it says it; when the end is told the answer stands,
// and both are the same.
func TestWarmAnswersFlow(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	step := make(chan struct{})
	w.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Text: "Salt and Light", Step: step} })
	key := w.key("user_1", "a title")
	reader := w.flows().Follow(key)
	defer reader.Close()
	ended := make(chan error, 1)
	go func() { ended <- handle(t.Context(), w.warmer(), asked("user_1", "a title")) }()
	var draft cache.Draft
	for i, want := range []string{"", "Salt ", "Salt and ", "Salt and Light", "Salt and Light", "Salt and Light"} {
		p := w.piece(reader)
		if err := draft.Add(p.Part); err != nil || p.Number != i || p.End != "" {
			t.Fatalf("piece %d is %+v (%v)", i, p, err)
		}
		if draft.Text() != want {
			t.Errorf("with piece %d it says %q", i, draft.Text())
		}
		if i > 0 && i < 5 {
			step <- struct{}{}
		}
	}
	if p := w.piece(reader); p.End != cache.FlowDone {
		t.Errorf("the end is %+v", p)
	}
	_, answer, err := w.read(key)
	if err != nil {
		t.Fatal(err)
	}
	told, err := draft.Answer()
	told.Key = key
	if err != nil || !bytes.Equal(must(told.Encode()), must(answer.Encode())) {
		t.Errorf("what was told is %+v, and what stands %+v (%v)", told, answer, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	w.everythingExpires()
}

// An end that says done is told only once the answer stands.
func TestWarmSaysDoneWhenItIs(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	release := make(chan struct{})
	w.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Hold: release} })
	reader := w.flows().Follow(w.key("user_1", "a title"))
	defer reader.Close()
	ended := make(chan error, 1)
	go func() { ended <- handle(t.Context(), w.warmer(), asked("user_1", "a title")) }()
	<-w.model.Arrived()
	// The whole view is fenced, so the answer will be refused, though its lease is not.
	if err := w.store.Fence(t.Context(), w.view, version.At(time.Now().Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	close(release)
	var p cache.FlowPiece
	for p.End == "" {
		p = w.piece(reader)
	}
	if p.End != cache.FlowFailed+"lost" {
		t.Errorf("the end is %q", p.End)
	}
	if err := <-ended; !errors.Is(err, cache.ErrRefused) {
		t.Errorf("it ended with %v", err)
	}
}

// Who follows is told how it ended when there is no answer.
func TestWarmFailuresFlow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reply modelserver.Reply
		end   string
	}{
		{modelserver.Reply{Status: 400, Code: "context_length_exceeded"}, "refused:context_length_exceeded"},
		{modelserver.Reply{Status: 500}, "failed:status_500"},
		{modelserver.Reply{Status: 429, Code: "rate_limit_exceeded", RetryAt: time.Now().Add(time.Hour)}, "failed:rate_limit_exceeded"},
		{modelserver.Reply{Cut: true}, "failed:model"},
		{modelserver.Reply{Hold: make(chan struct{})}, "failed:timeout"},
	} {
		t.Run(c.end, func(t *testing.T) {
			t.Parallel()
			w := newWarmth(t)
			w.model.Respond(func(modelserver.Call) modelserver.Reply { return c.reply })
			reader := w.flows().Follow(w.key("user_1", "a title"))
			defer reader.Close()
			warmer := w.warmer(func(o *WarmerOptions) { o.CallFor = 2 * time.Second })
			err := handle(t.Context(), warmer, asked("user_1", "a title"))
			if done := strings.HasPrefix(c.end, cache.FlowRefused); (err == nil) != done {
				t.Errorf("the event ends with %v", err)
			}
			var p cache.FlowPiece
			for p.End == "" {
				p = w.piece(reader)
			}
			if p.End != c.end {
				t.Errorf("the end is %q", p.End)
			}
			if _, _, err := w.read(w.key("user_1", "a title")); err == nil {
				t.Error("something is cached")
			}
			if left := warmer.pauses.left("test-model", time.Now()); (left > 50*time.Second) != !c.reply.RetryAt.IsZero() {
				t.Errorf("the model wants no calls for %s", left)
			}
		})
	}
}

// A worker that dies in the middle is replaced, and its successor tells all anew.
func TestWarmFlowsAnewAfterADeath(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if c.Number == 1 {
			return modelserver.Reply{Text: "from the dead", Step: make(chan struct{})}
		}
		return modelserver.Reply{Text: "from the living"}
	})
	reader := w.flows().Follow(w.key("user_1", "a title"))
	defer reader.Close()
	dead := w.warmer()
	died := make(chan error, 1)
	first := asked("user_1", "a title")
	go func() { died <- handle(t.Context(), dead, first) }()
	w.piece(reader)
	if p := w.piece(reader); !strings.Contains(string(p.Part.Delta), "from") {
		t.Errorf("the second piece is %+v", p)
	}
	dead.store.Close() // no more renewals
	other := w.warmer()
	testserver.Eventually(t, "it is asked again", func() error { return handle(t.Context(), other, first) })
	var draft cache.Draft
	for p := w.piece(reader); p.End == ""; p = w.piece(reader) {
		if err := draft.Add(p.Part); err != nil {
			t.Fatal(err)
		}
	}
	if draft.Text() != "from the living" {
		t.Errorf("what was told is %q", draft.Text())
	}
	w.model.Close()
	<-died
}

// Answers that are not to last stand for a moment, for those who wait.
func TestWarmHandsOver(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	replies := map[string]modelserver.Reply{
		"short":    {Text: "and then", FinishReason: "length"},
		"declined": {Refusal: "no"},
		"filtered": {Text: "and", FinishReason: "content_filter"},
		"whole":    {Text: "the end"},
	}
	w.model.Respond(func(c modelserver.Call) modelserver.Reply { return replies[c.Prompt] })
	life := func(key string) time.Duration { return w.client.PTTL(t.Context(), "mythic:ai_answer:{"+key+"}").Val() }
	warmer, keeping := w.warmer(), w.warmer(func(o *WarmerOptions) { o.KeepTruncated = true })
	for text := range replies {
		if err := handle(t.Context(), warmer, asked("user_1", text)); err != nil {
			t.Fatal(err)
		}
		if err := handle(t.Context(), keeping, asked("user_2", text)); err != nil {
			t.Fatal(err)
		}
		if _, answer, err := w.read(w.key("user_1", text)); err != nil || answer.Refusal != replies[text].Refusal || answer.Text != replies[text].Text {
			t.Errorf("%s: the answer is %+v (%v)", text, answer, err)
		}
		if brief := life(w.key("user_1", text)) <= handOver; brief != (text != "whole") {
			t.Errorf("%s: the answer lives for %s", text, life(w.key("user_1", text)))
		}
		if brief := life(w.key("user_2", text)) <= handOver; brief != (text == "declined" || text == "filtered") {
			t.Errorf("%s: where truncated ones are kept it lives for %s", text, life(w.key("user_2", text)))
		}
	}
}

// Nobody shares an answer that is not to be stored, and it is gone soon.
func TestWarmStoresNothing(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	request := json.RawMessage(must(cache.ChatRequest(json.RawMessage(`{"prompt":"a title"}`), "test-model")))
	for i, nonce := range []string{"a", "b", "b"} {
		data := must(json.Marshal(map[string]any{"scope": "user_1", "request": request, "no_store": true, "nonce": nonce}))
		if err := handle(t.Context(), warmer, event.Event{Type: event.AIRequested, Data: data}); err != nil {
			t.Fatal(err)
		}
		if n := len(w.model.Calls()); n != min(i+1, 2) {
			t.Errorf("after %d questions the model was called %d times", i+1, n)
		}
		key, _, err := cache.OneTimeKey(newModel(t, w.model).Name(), "user_1", nonce, request)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.read(key); err != nil {
			t.Error(err)
		}
		if ttl := w.client.PTTL(t.Context(), "mythic:ai_answer:{"+key+"}").Val(); ttl > handOver {
			t.Errorf("it lives for %s", ttl)
		}
	}
	if _, _, err := w.read(w.key("user_1", "a title")); err == nil {
		t.Error("it is stored for others")
	}
}

func TestNewWarmerChecksItsTimes(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	_, err := NewWarmer(w.store, WarmerOptions{View: w.view, Model: NewDemoModel(), CallFor: 100 * time.Second, LeaseFor: 20 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "CallFor (1m40s)") || !strings.Contains(err.Error(), "FenceTTL (2m0s)") {
		t.Errorf("the error is %v", err)
	}
}
