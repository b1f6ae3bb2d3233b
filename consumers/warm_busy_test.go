package consumers

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/modelserver"
)

// Who waits for an answer that is being made hears of that one alone, however busy or
// broken the model is for others meanwhile.
func TestWarmIsNotCutByABusyModel(t *testing.T) {
	t.Parallel()
	for what, status := range map[string]int{"busy": 429, "failing": 500} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWarmth(t)
			step := make(chan struct{})
			w.model.Respond(func(c modelserver.Call) modelserver.Reply {
				if strings.HasPrefix(c.Prompt, "bad") {
					return modelserver.Reply{Status: status, RetryAfter: 20 * time.Second}
				}
				return modelserver.Reply{Text: "one two three", Step: step}
			})
			warmer := w.warmer()
			heard := w.listen().Wait(w.view.Name, w.key("u1", "slow"))
			defer heard.Cancel()
			first := asked("u1", "slow")
			ended := make(chan error, 1)
			go func() { ended <- handle(t.Context(), warmer, first) }()
			<-w.model.Arrived()
			for i := range breakAfter {
				_ = handle(t.Context(), warmer, asked(fmt.Sprint("u", i), fmt.Sprint("bad ", i)))
			}
			d, err := warmer.read(first, "1-0")
			if err != nil || warmer.notNow(d) == nil {
				t.Fatalf("the model is asked still (%v)", err)
			}
			for _, terms := range []string{`{`, `{"warm":true,`} {
				e := oneMore(first)
				e.Data = json.RawMessage(strings.Replace(string(first.Data), `{`, terms, 1))
				if err := handle(t.Context(), warmer, e); err != nil { // it joins
					t.Errorf("the next who asks with %s: %v", terms, err)
				}
			}
			close(step)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if got := <-heard.C(); got.Outcome != cache.Accepted {
				t.Errorf("who waits hears %c: %s", got.Outcome, got.Reason)
			}
		})
	}
}

// A question that is put off tells those who wait, and keeps no lease. One for which nobody
// waits tells nobody.
func TestWarmTellsOfABusyModel(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	warmer.pauses.extend("test-model", time.Now(), 20*time.Second)
	heard := w.listen().Wait(w.view.Name, w.key("u1", "slow"))
	defer heard.Cancel()
	e := asked("u1", "slow")
	ahead := e
	ahead.Data = json.RawMessage(strings.Replace(string(e.Data), `{`, `{"warm":true,`, 1))
	for _, e := range []struct {
		data json.RawMessage
		told bool
	}{{ahead.Data, false}, {e.Data, true}} {
		next := asked("u1", "slow")
		next.Data = e.data
		if err := handle(t.Context(), warmer, next); err == nil {
			t.Error("it is done")
		}
		if found, err := w.store.Inspect(t.Context(), w.view, w.key("u1", "slow")); err != nil || found.Holder != "" {
			t.Errorf("the lease is held (%v)", err)
		}
		// Who has heard nothing before hears this.
		if err := w.store.AnnounceFailure(t.Context(), w.view.Name, w.key("u1", "slow"), nil, "the mark"); err != nil {
			t.Fatal(err)
		}
		got := <-heard.C()
		if told := strings.HasPrefix(got.Reason, cache.AnswerBusy); told != e.told {
			t.Errorf("who waits hears %c: %s", got.Outcome, got.Reason)
		}
	}
	if n := len(w.model.Calls()); n != 0 {
		t.Errorf("the model was called %d times", n)
	}
}
