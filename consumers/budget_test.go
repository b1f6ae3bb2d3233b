package consumers

import (
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
	"mythiccache/producers/stream"
)

func TestParseBudgets(t *testing.T) {
	t.Parallel()
	b, err := ParseBudgets(" default=60/1m, 100000t/1d ; a=b:c=1/1h; ")
	if err == nil {
		t.Errorf("a=b:c=1/1h is %+v", b)
	}
	b, err = ParseBudgets(" default=60/1m, 100000t/1d ; ft:gpt-4o=1/1h; warm=50% ")
	if err != nil {
		t.Fatal(err)
	}
	want := "[{false 60 1m0s} {true 100000 24h0m0s}] [{false 1 1h0m0s}] 0.5"
	if got := fmt.Sprint(b.of("m"), b.of("ft:gpt-4o"), b.share()); got != want {
		t.Errorf("the budgets are %s", got)
	}
	if b, err = ParseBudgets(""); err != nil || b.of("m") != nil || b.share() != warmShare {
		t.Errorf("no budget is %+v (%v)", b, err)
	}
	for text, says := range map[string]string{
		"60/1m":                   "model=calls/duration",
		"m=60":                    "neither calls/duration nor tokens",
		"m=many/1m":               "no count",
		"m=0/1m":                  "no count",
		"m=-1t/1m":                "no count",
		"m=1/32d":                 "no duration",
		"m=1/0s":                  "no duration",
		"m=1/1m,2/60s":            "twice",
		"m=1/1m;m=2/1m":           "two budgets",
		"warm=0%":                 "no share",
		"warm=NaN%":               "no share",
		"warm=0.5":                "no share",
		"=1/1m":                   "model=calls/duration",
		"default=1/1m,":           "neither",
		"default=1t/99999999999d": "no duration",
	} {
		if _, err := ParseBudgets(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("of %q it says %v", text, err)
		}
	}
}

func budgets(t *testing.T, text string) func(*WarmerOptions) {
	t.Helper()
	b, err := ParseBudgets(text)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *WarmerOptions) { o.Budgets = b }
}

// ahead asks for what nobody waits for.
func ahead(text string) event.Event {
	data := must(json.Marshal(map[string]any{"scope": "user_1", "prompt": text, "warm": true}))
	return event.Event{Type: event.AIRequested, Data: data, Time: time.Now()}
}

// busy reads what was announced.
func busy(f cache.Filled) (time.Duration, string, bool) { return cache.Busy(f.Reason) }

func dropped(t *testing.T, w *Warmer, why string) float64 {
	t.Helper()
	return valueOf(t, w.dropped.WithLabelValues("test-model", why))
}

// Three workers share one budget exactly. The window is a month, so that it does not
// end while the test runs (but once a month).
func TestWarmKeepsToItsBudget(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	var warmers []*Warmer
	for range 3 {
		warmers = append(warmers, w.warmer(budgets(t, "default=125/31d"), func(o *WarmerOptions) { o.WarmInFlight = 64 }))
	}
	var handling sync.WaitGroup
	questions := make(chan string)
	for i := range 24 {
		handling.Go(func() {
			for text := range questions {
				if err := handle(t.Context(), warmers[i%3], ahead(text)); err != nil {
					t.Errorf("%s: %v", text, err)
				}
			}
		})
	}
	for i := range 500 {
		questions <- fmt.Sprintf("title %d", i)
	}
	close(questions)
	handling.Wait()
	if n := len(w.model.Calls()); n != 100 { // four fifths
		t.Errorf("the model was called %d times", n)
	}
	sum := 0.0
	for _, warmer := range warmers {
		sum += dropped(t, warmer, "budget")
	}
	if sum != 400 {
		t.Errorf("%v questions were dropped", sum)
	}
	// The rest is for those who wait.
	wait := w.listen().Wait(w.view.Name, w.key("user_1", "asked 25"))
	defer wait.Cancel()
	for i := range 26 {
		if err := handle(t.Context(), warmers[0], asked("user_1", fmt.Sprintf("asked %d", i))); err != nil {
			t.Error(err)
		}
	}
	if n := len(w.model.Calls()); n != 125 {
		t.Errorf("the model was called %d times", n)
	}
	if after, why, ok := busy(<-wait.C()); !ok || after < time.Minute || why != "the budget is spent" {
		t.Errorf("who waits is told %s, %q, %v", after, why, ok)
	}
	w.everythingExpires()
}

// Tokens are taken by estimate, and corrected by what the provider says.
func TestWarmCorrectsTokens(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer(budgets(t, "test-model=2100t/31d"))
	spent := func(want string) {
		t.Helper()
		got := w.client.HGet(t.Context(), "mythic:ai_budget:{test-model}", "tokens/744h0m0s").Val()
		if _, sum, _ := strings.Cut(got, " "); sum != want {
			t.Errorf("%s tokens are spent, not %s", sum, want)
		}
	}
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		spent("1017") // a thousand, and a quarter of the request
		return modelserver.Reply{Text: "one two three"}
	})
	if err := handle(t.Context(), warmer, asked("user_1", "a title")); err != nil {
		t.Fatal(err)
	}
	spent("5")
	w.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Status: 400} })
	_ = handle(t.Context(), warmer, asked("user_1", "a title refused"))
	spent("5")
	w.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{NoUsage: true} })
	if err := handle(t.Context(), warmer, asked("user_1", "b title")); err != nil {
		t.Fatal(err)
	}
	spent("1022")
}

// A budget that is free again soon is waited for.
func TestWarmWaitsForItsBudget(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.run(w.warmer(budgets(t, "default=2/2s;warm=50%")))
	w.publish(ahead("one"), ahead("two"), asked("user_1", "three"), asked("user_1", "four"))
	testserver.Eventually(t, "all are answered", func() error {
		for _, text := range []string{"one", "two", "three", "four"} {
			if _, _, err := w.read(w.key("user_1", text)); err != nil {
				return err
			}
		}
		return w.settled()
	})
	if n := len(w.model.Calls()); n != 4 {
		t.Errorf("the model was called %d times", n)
	}
}

// Who waits is not kept waiting by questions that nobody waits for: these have places of
// their own.
func TestWarmGivesWay(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	release := make(chan struct{})
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if c.Prompt == "slow" {
			return modelserver.Reply{Status: 500, Hold: release}
		}
		return modelserver.Reply{}
	})
	warmer := w.warmer(func(o *WarmerOptions) { o.WarmInFlight = 1 })
	ended := make(chan error, 1)
	go func() { ended <- handle(t.Context(), warmer, ahead("slow")) }()
	<-w.model.Arrived()
	if err := handle(t.Context(), warmer, ahead("another")); !errors.Is(err, stream.ErrLater) {
		t.Errorf("the second ends with %v", err)
	}
	if err := handle(t.Context(), warmer, asked("user_1", "another")); err != nil {
		t.Errorf("who waits is told %v", err)
	}
	close(release)
	if err := <-ended; err == nil {
		t.Error("the failure is none")
	}
	old := ahead("old")
	old.Time = time.Now().Add(-warmAge - time.Minute)
	if err := handle(t.Context(), warmer, old); err != nil || dropped(t, warmer, "late") != 1 {
		t.Errorf("an old one ends with %v", err)
	}
}

// A question for which somebody waits does not join one that may be dropped. One like
// that does.
func TestWarmJoinsItsEquals(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	release := make(chan struct{})
	w.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Hold: release} })
	warmer := w.warmer()
	ended := make(chan error, 1)
	go func() { ended <- handle(t.Context(), warmer, ahead("a title")) }()
	<-w.model.Arrived()
	other := w.warmer()
	if err := handle(t.Context(), other, oneMore(asked("user_1", "a title"))); !errors.Is(err, stream.ErrLater) {
		t.Errorf("who waits is told %v", err)
	}
	if err := handle(t.Context(), other, oneMore(ahead("a title"))); err != nil {
		t.Errorf("nobody waits, and it ends with %v", err)
	}
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := len(w.model.Calls()); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
}
