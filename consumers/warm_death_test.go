package consumers

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// A worker that is told to stop gives its lease back; the event comes again.
func TestWarmWorkerStops(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if c.Number == 1 {
			return modelserver.Reply{Hold: make(chan struct{})}
		}
		return modelserver.Reply{Text: "from the second"}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-w.model.Arrived()
		cancel()
	}()
	// A lease that would hold the second one up, were it not given back.
	err := handle(ctx, w.warmer(func(o *WarmerOptions) { o.LeaseFor, o.CallFor = 100*time.Second, 10*time.Second }), asked("user_1", "a title"))
	if !errors.Is(err, stream.ErrPause) {
		t.Fatalf("the error is %v", err)
	}
	testserver.Eventually(t, "the call ends", func() error {
		if w.model.HungUp() != 1 {
			return errNotYet
		}
		return nil
	})
	if err := handle(t.Context(), w.warmer(), asked("user_1", "a title")); err != nil {
		t.Fatal(err)
	}
	if _, answer, err := w.read(w.key("user_1", "a title")); err != nil || answer.Text != "from the second" {
		t.Errorf("the answer is %+v (%v)", answer, err)
	}
}

// A worker that dies says nothing; its event comes to another, which takes over when the
// lease has run out, and asks for who had joined, too. What the dead one may say later is
// not heard.
func TestWarmWorkerDies(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	release := make(chan struct{})
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if c.Number == 1 {
			return modelserver.Reply{Text: "from the dead", Hold: release}
		}
		return modelserver.Reply{Text: "from the living"}
	})
	dead := w.warmer()
	died := make(chan error, 1)
	first := asked("user_1", "a title")
	go func() { died <- handle(t.Context(), dead, first) }()
	<-w.model.Arrived()
	other := w.warmer()
	if err := handle(t.Context(), other, oneMore(first)); err != nil {
		t.Errorf("who joins ends with %v", err)
	}
	dead.store.Close() // no more renewals
	if err := handle(t.Context(), other, first); !errors.Is(err, stream.ErrLater) {
		t.Errorf("it comes again while its lease lives, and ends with %v", err)
	}
	testserver.Eventually(t, "the lease has run out", func() error { return handle(t.Context(), other, first) })
	close(release)
	if err := <-died; err == nil {
		t.Error("the dead one stored its answer")
	}
	if _, answer, err := w.read(w.key("user_1", "a title")); err != nil || answer.Text != "from the living" {
		t.Errorf("the answer is %+v (%v)", answer, err)
	}
	if n := len(w.model.Calls()); n != 2 {
		t.Errorf("the model was called %d times", n)
	}
}

// A worker whose lease was lost, because it was frozen for too long, say, stops
// asking and leaves the answer to the one that has the lease.
func TestWarmLeaseLost(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply { return modelserver.Reply{Hold: make(chan struct{})} })
	warmer := w.warmer()
	ended := make(chan error, 1)
	go func() { ended <- handle(t.Context(), warmer, asked("user_1", "a title")) }()
	<-w.model.Arrived()
	key := w.key("user_1", "a title")
	if _, err := w.store.Invalidate(t.Context(), []cache.Change{{View: w.view, Key: key}}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, errLeaseLost) || errors.Is(err, stream.ErrPause) {
		t.Errorf("the error is %v", err)
	}
	testserver.Eventually(t, "the call ends", func() error {
		if w.model.HungUp() != 1 {
			return errNotYet
		}
		return nil
	})
}

// A model that takes too long costs a delivery, and its lease is free at once.
func TestWarmModelTakesTooLong(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Hold: make(chan struct{})} })
	err := handle(t.Context(), w.warmer(func(o *WarmerOptions) { o.CallFor = 50 * time.Millisecond }), asked("user_1", "a title"))
	if !errors.Is(err, errTooLong) || errors.Is(err, stream.ErrPause) || errors.Is(err, stream.ErrReject) {
		t.Errorf("the error is %v", err)
	}
	if _, err := w.store.Lease(t.Context(), w.view, w.key("user_1", "a title"), time.Second); err != nil {
		t.Error(err)
	}
}

// While Redis is away nothing is asked, and nothing is blamed on the event.
func TestWarmRedisAway(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	w.redis.Stop()
	if err := handle(t.Context(), warmer, asked("user_1", "a title")); !errors.Is(err, stream.ErrPause) {
		t.Errorf("the error is %v", err)
	}
	if err := w.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "it goes on", func() error { return handle(t.Context(), warmer, asked("user_1", "a title")) })
	if n := len(w.model.Calls()); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
}

// Without the view's own key no put is accepted, so no call is paid for.
func TestWarmWaitsForItsView(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	if err := w.client.Del(t.Context(), "mythic:view:ai_answer").Err(); err != nil {
		t.Fatal(err)
	}
	if err := handle(t.Context(), w.warmer(), asked("user_1", "a title")); !errors.Is(err, stream.ErrPause) {
		t.Errorf("the error is %v", err)
	}
	if n := len(w.model.Calls()); n != 0 {
		t.Errorf("the model was called %d times", n)
	}
}

// Whatever happens, neither what was asked nor what was answered is logged.
func TestWarmLogsNoPrompt(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	const secret = "the-moon-is-hollow"
	replies := map[string]modelserver.Reply{
		"fine":      {Text: secret},
		"refused":   {Status: 400, Code: secret, Message: secret},
		"broken":    {Status: 500, Message: secret},
		"busy":      {Status: 429, Message: secret},
		"garbled":   {Malformed: `{"choices":"` + secret},
		"text":      {Malformed: secret},
		"cut":       {Cut: true},
		"declining": {Refusal: secret},
	}
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		for name, reply := range replies {
			if strings.HasSuffix(c.Prompt, name) {
				return reply
			}
		}
		return modelserver.Reply{}
	})
	// Handlers without a stream, so that no pause of the model's holds others up.
	for name := range replies {
		_ = handle(t.Context(), w.warmer(), asked("user_1", secret+name))
		_ = handle(t.Context(), w.warmer(), asked("user_1", secret+name))
	}
	// And through the stream, whose own lines are in the same log.
	w.run(w.warmer(), func(o *stream.SubscriberOptions) { o.MaxDeliveries = 2 })
	w.publish(asked("user_1", secret+"fine"), asked("user_1", secret+"refused"), asked("user_1", secret+"broken"))
	for _, data := range []string{
		`{"scope":"user_1","prompt":["` + secret + `"]}`,
		`{"scope":"user_1","request":"` + secret + `"}`,
		`{"scope":"user_1","prompt":"x","` + secret + `":1,"request":{}}`,
		`{"scope":"user_1","request":{"messages":[{"content":"` + secret + `"}],"n":7}}`,
		`"` + secret + `"`,
	} {
		w.publish(asEvent(data))
	}
	testserver.Eventually(t, "all is over", func() error {
		if len(w.dead()) != 6 {
			return errNotYet
		}
		return w.settled()
	})
	for _, text := range append(w.dead(), strings.Split(w.log.String(), "\n")...) {
		if strings.Contains(text, "moon") {
			t.Errorf("it was written: %s", text)
		}
	}
	if !strings.Contains(w.log.String(), "answer made") {
		t.Error("the log that was looked at is not the warmer's")
	}
}

// A base URL's password is not to be read either.
func TestWarmLogsNoCredentials(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Close()
	model, err := NewOpenAI(strings.Replace(w.model.URL(), "http://", "http://user:hunter2@", 1), "sk-hunter2", &http.Client{})
	if err != nil {
		t.Fatal(err)
	}
	err = handle(t.Context(), w.warmer(func(o *WarmerOptions) { o.Model = model }), asked("user_1", "a title"))
	if err == nil || strings.Contains(err.Error()+w.log.String(), "hunter2") {
		t.Errorf("the error is %v", err)
	}
}
