package consumers

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
)

// again is a question that an API process asks of an answer that it has.
func again(e cache.Entry, text string) event.Event {
	data := must(json.Marshal(map[string]string{
		"scope": "user_1", "prompt": text, "instead": e.Version.String(), "saved": fmt.Sprint(e.Saved.UnixMilli()),
	}))
	return event.Event{Type: event.AIRequested, Data: data, Time: time.Now()}
}

// made has an answer made, and returns it.
func (w *warmth) made(warmer *Warmer, text string) cache.Entry {
	w.t.Helper()
	if err := handle(w.t.Context(), warmer, asked("user_1", text)); err != nil {
		w.t.Fatal(err)
	}
	entry, _, err := w.read(w.key("user_1", text))
	if err != nil {
		w.t.Fatal(err)
	}
	return entry
}

// says fails the test unless the answer to "a title" is this.
func (w *warmth) says(want string) {
	w.t.Helper()
	if _, answer, err := w.read(w.key("user_1", "a title")); err != nil || answer.Text != want {
		w.t.Errorf("the answer is %q (%v), not %q", answer.Text, err, want)
	}
}

// numbered has the model number its answers.
func (w *warmth) numbered(reply modelserver.Reply) {
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		r := reply
		if c.Number == 1 {
			r = modelserver.Reply{}
		}
		r.Text = fmt.Sprint("answer ", c.Number)
		return r
	})
}

// Three processes have seen that an answer is hot, and three workers hear of it. It is
// made again once, and served meanwhile.
func TestWarmAgainOnce(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"plain": "", "sealed": base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWarmth(t)
			keys, err := cache.ParseAnswerKeys(key)
			if err != nil {
				t.Fatal(err)
			}
			sealed := func(o *cache.Options) { o.AIKeys = keys }
			w.store = w.newStore(sealed)
			release := make(chan struct{})
			w.numbered(modelserver.Reply{Hold: release})
			var warmers []*Warmer
			for range 3 {
				warmer := w.warmer()
				warmer.store = w.newStore(sealed)
				warmer.answers = warmer.store.NewAnswers(w.view)
				warmers = append(warmers, warmer)
			}
			first := w.made(warmers[0], "a title")
			var handling sync.WaitGroup
			for i := range 9 {
				handling.Go(func() {
					if err := handle(t.Context(), warmers[i%3], again(first, "a title")); err != nil {
						t.Error(err)
					}
				})
			}
			<-w.model.Arrived()
			<-w.model.Arrived()
			w.says("answer 1")
			// Who asks meanwhile has the old one at once.
			if err := handle(t.Context(), warmers[1], asked("user_1", "a title")); err != nil {
				t.Error(err)
			}
			close(release)
			handling.Wait()
			w.says("answer 2")
			if raw := w.client.Get(t.Context(), "mythic:ai_answer:{"+first.Key+"}").Val(); strings.Contains(raw, "answer 2") != (key == "") {
				t.Errorf("what is stored is %q", raw)
			}
			for _, warmer := range warmers { // one that was slower
				if err := handle(t.Context(), warmer, again(first, "a title")); err != nil {
					t.Error(err)
				}
			}
			w.says("answer 2")
			if n := len(w.model.Calls()); n != 2 {
				t.Errorf("the model was called %d times", n)
			}
			w.everythingExpires()
		})
	}
}

// What stands in the way of a new answer leaves the old one as it is, and is not tried
// again.
func TestWarmAgainLeavesTheOld(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reply  modelserver.Reply
		option func(*WarmerOptions)
		before func(*Warmer)
		calls  int // with the first
	}{
		"it fails":          {reply: modelserver.Reply{Status: 500}, calls: 2},
		"it is refused":     {reply: modelserver.Reply{Status: 400}, calls: 2},
		"it is busy":        {reply: modelserver.Reply{Status: 429}, calls: 2},
		"it is declined":    {reply: modelserver.Reply{Refusal: "no"}, calls: 2},
		"it is cut short":   {reply: modelserver.Reply{FinishReason: "length"}, calls: 2},
		"the stream is cut": {reply: modelserver.Reply{Cut: true}, calls: 2},
		"no budget":         {option: budgets(t, "default=2/31d;warm=50%"), calls: 1},
		"the model is away": {before: func(w *Warmer) { w.pauses.extend("test-model", time.Now(), time.Hour) }, calls: 1},
		"the breaker is open": {before: func(w *Warmer) {
			for n := range breakAfter {
				w.breakers.done(of("test-model", fmt.Sprint("caller", n), 0), time.Now(), &ModelError{Status: 503})
			}
		}, calls: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWarmth(t)
			w.numbered(c.reply)
			warmer := w.warmer(func(o *WarmerOptions) {
				if c.option != nil {
					c.option(o)
				}
			})
			first := w.made(warmer, "a title")
			if c.before != nil {
				c.before(warmer)
			}
			heard := w.listen().Wait(w.view.Name, first.Key)
			defer heard.Cancel()
			if err := handle(t.Context(), warmer, again(first, "a title")); err != nil {
				t.Errorf("the event ends with %v", err)
			}
			w.says("answer 1")
			if n := len(w.model.Calls()); n != c.calls {
				t.Errorf("the model was called %d times", n)
			}
			if n := dropped(t, warmer, "refresh"); n != 1 {
				t.Errorf("%v were dropped", n)
			}
			if _, err := w.store.Lease(t.Context(), w.view, first.Key, time.Second); err != nil {
				t.Errorf("the lease was kept: %v", err)
			}
			if err := w.store.Ping(t.Context()); err != nil { // by when an announcement would have come
				t.Fatal(err)
			}
			select {
			case got := <-heard.C():
				t.Errorf("it was announced: %c, %s", got.Outcome, got.Reason)
			default:
			}
		})
	}
}

// An answer that is gone, or is another by now, is not made again.
func TestWarmAgainIsVoid(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.numbered(modelserver.Reply{})
	warmer := w.warmer()
	first := w.made(warmer, "a title")
	// Its scope is being forgotten: what it has is about to be removed.
	if _, err := w.store.NewAnswers(w.view).Forget(t.Context(), "user_1", fmt.Sprintf("%d-0", time.Now().Add(time.Hour).UnixMilli())); err != nil {
		t.Fatal(err)
	}
	if err := handle(t.Context(), warmer, again(first, "a title")); err != nil {
		t.Error(err)
	}
	w.says("answer 1")
	forget := event.Event{Type: event.AIForget, Subject: "user_1", Time: time.Now()}
	if err := handle(t.Context(), warmer, forget); err != nil {
		t.Fatal(err)
	}
	if err := handle(t.Context(), warmer, again(first, "a title")); err != nil {
		t.Error(err)
	}
	if _, _, err := w.read(first.Key); err == nil {
		t.Error("what was forgotten is back")
	}
	if n := len(w.model.Calls()); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
	for _, wrong := range []string{`{"prompt":"a","instead":"now","saved":"5"}`, `{"prompt":"a","instead":3}`, `{"prompt":"a","instead":"` + first.Version.String() + `"}`} {
		if _, err := warmer.read(event.Event{Type: event.AIRequested, Subject: "user_1", Data: json.RawMessage(wrong)}, "1-0"); !errors.Is(err, cache.ErrRequest) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// What the app has brought is not made again by the model, sealed or not.
func TestWarmAgainLeavesWhatTheAppBrought(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"plain": "", "sealed": base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWarmth(t)
			keys, err := cache.ParseAnswerKeys(key)
			if err != nil {
				t.Fatal(err)
			}
			w.store = w.newStore(func(o *cache.Options) { o.AIKeys = keys })
			warmer := w.warmer()
			warmer.store, warmer.answers = w.store, w.store.NewAnswers(w.view)
			if err := handle(t.Context(), warmer, answered(`{"scope":"user_1","prompt":"a title","text":"Brine"}`)); err != nil {
				t.Fatal(err)
			}
			entry, _, err := w.read(w.key("user_1", "a title"))
			if err != nil {
				t.Fatal(err)
			}
			if err := handle(t.Context(), warmer, again(entry, "a title")); err != nil {
				t.Fatal(err)
			}
			w.says("Brine")
			// Of an older release nothing says who made it.
			old := cache.Answer{Key: entry.Key, Model: "house", Text: "Kelp", FinishReason: "stop"}
			lease, err := w.store.Lease(t.Context(), w.view, entry.Key, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.store.Put(t.Context(), lease, cache.Fill{Owner: "user_1", Owned: true, Body: must(old.Encode())}); err != nil {
				t.Fatal(err)
			}
			if entry, _, err = w.read(entry.Key); err != nil {
				t.Fatal(err)
			}
			w.numbered(modelserver.Reply{})
			if err := handle(t.Context(), warmer, again(entry, "a title")); err != nil {
				t.Fatal(err)
			}
			w.says("answer 1")
			if n := len(w.model.Calls()); n != 1 {
				t.Errorf("the model was called %d times", n)
			}
		})
	}
}

// What is forgotten while it is made again stays forgotten.
func TestWarmAgainIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	release := make(chan struct{})
	w.numbered(modelserver.Reply{Hold: release})
	warmer := w.warmer()
	first := w.made(warmer, "a title")
	<-w.model.Arrived()
	ended := make(chan error, 1)
	go func() { ended <- handle(context.Background(), warmer, again(first, "a title")) }()
	<-w.model.Arrived()
	if err := handle(t.Context(), warmer, event.Event{Type: event.AIForget, Subject: "user_1", Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-ended; err != nil {
		t.Errorf("the event ends with %v", err)
	}
	if _, _, err := w.read(first.Key); err == nil {
		t.Error("what was forgotten is back")
	}
	testserver.Eventually(t, "the forgotten is asked anew", func() error {
		return handle(t.Context(), warmer, asked("user_1", "a title"))
	})
}
