package consumers

import (
	"errors"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/producers/stream"
)

// An answer that has no form in which it could be kept leaves no lease. Where an old one
// stands that stays, and nobody hears of it.
func TestWarmLeavesNoLeaseOfWhatCannotBeKept(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	key := w.key("user_1", "a title")
	heard := w.listen().Wait(w.view.Name, key)
	defer heard.Cancel()
	broken := cache.Answer{Key: key, Text: "Salt", FinishReason: "stop", Other: []byte(`{"`)}
	put := func(d aiData) {
		t.Helper()
		d.scope, d.key, d.model = "user_1", key, "test-model"
		lease, err := w.store.Lease(t.Context(), w.view, key, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := warmer.put(t.Context(), d, lease, broken, 0); !errors.Is(err, errUnkept) || errors.Is(err, stream.ErrPause) {
			t.Errorf("it ends with %v", err)
		}
		if found, err := w.store.Inspect(t.Context(), w.view, key); err != nil || found.Holder != "" {
			t.Errorf("%s holds the lease (%v)", found.Holder, err)
		}
	}
	put(aiData{instead: &Replaced{}})
	put(aiData{})
	if got := <-heard.C(); got.Outcome != cache.Failed || got.Reason != errUnkept.Error() {
		t.Errorf("who waits hears %c, %q", got.Outcome, got.Reason)
	}
	select {
	case got := <-heard.C():
		t.Errorf("who waits hears %c, %q, too", got.Outcome, got.Reason)
	default:
	}
}
