package consumers

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/producers/event"
)

// Names that callers make up share one budget; those that are configured have their own.
func TestWarmCountsUnknownModelsTogether(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	models, err := cache.ParseModels("test-model", "", "")
	if err != nil {
		t.Fatal(err)
	}
	warmer := w.warmer(budgets(t, "default=3/31d;dear=2/31d"), func(o *WarmerOptions) { o.Models = models })
	ask := func(model string, n int) {
		t.Helper()
		data, err := json.Marshal(map[string]any{"scope": "user_1", "request": map[string]any{"model": model, "messages": []any{map[string]string{"role": "user", "content": fmt.Sprint(n)}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := handle(t.Context(), warmer, event.Event{Type: event.AIRequested, Data: data, Time: time.Now()}); err != nil {
			t.Errorf("%s: %v", model, err)
		}
	}
	for n := range 5 {
		ask(fmt.Sprintf("made-up-%d", n), n)
		ask("dear", n)
		ask("test-model", n)
	}
	calls := map[string]int{}
	for _, call := range w.model.Calls() {
		calls[call.Model]++
	}
	if made := calls["made-up-0"] + calls["made-up-1"] + calls["made-up-2"]; len(w.model.Calls()) != 8 || made != 3 || calls["dear"] != 2 || calls["test-model"] != 3 {
		t.Errorf("the models were called %v", calls)
	}
	if keys := w.store.Client().Keys(t.Context(), "mythic:ai_budget:*").Val(); len(keys) != 3 {
		t.Errorf("budgets are counted in %v", keys)
	}
}

// Whoever comes back for an answer that was dropped for its budget learns that it was.
func TestWarmRemembersWhatWasDropped(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer(budgets(t, "default=1/31d"))
	answers := w.store.NewAnswers(w.view)
	for _, title := range []string{"one", "two"} {
		if err := answers.Ask(t.Context(), "user_1", w.key("user_1", title)); err != nil {
			t.Fatal(err)
		}
		if err := handle(t.Context(), warmer, asked("user_1", title)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := answers.Asked(t.Context(), "user_1", w.key("user_1", "two"))
	if err != nil || got.Dropped != "the budget is spent" || got.After < time.Minute {
		t.Errorf("it is told %+v (%v)", got, err)
	}
}
