package consumers

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"mythiccache/internal/modelserver"
	"mythiccache/producers/stream"
)

// valueOf reads a counter or a gauge.
func valueOf(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var read dto.Metric
	if err := m.Write(&read); err != nil {
		t.Fatal(err)
	}
	return read.GetCounter().GetValue() + read.GetGauge().GetValue()
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	b := newBreakers(func(model string) string { return model })
	now := time.Unix(1_000_000, 0)
	broken := fmt.Errorf("ask: %w", &ModelError{Status: 503})
	state := func(want float64) {
		t.Helper()
		if got := valueOf(t, b.state.WithLabelValues("m")); got != want {
			t.Errorf("the state is %v, not %v", got, want)
		}
	}
	fail := func(times int) {
		for range times {
			b.done("m", now, broken)
		}
	}
	fail(breakAfter - 1)
	for _, harmless := range []error{
		&ModelError{Status: 400}, &ModelError{Status: 429}, nil, // of these the model is well
	} {
		b.done("m", now, harmless)
		fail(breakAfter - 1)
		if left := b.begin("m", now); left != 0 {
			t.Fatalf("after %v it is open for %s", harmless, left)
		}
	}
	for _, silent := range []error{context.Canceled, errLeaseLost} { // of these nothing is known
		b.done("m", now, silent)
	}
	fail(1)
	state(breakerOpen)
	if left := b.begin("m", now); left != breakFirst {
		t.Errorf("it is open for %s", left)
	}
	if left := b.begin("another", now); left != 0 {
		t.Errorf("another is open for %s", left)
	}
	now = now.Add(breakFirst)
	if first, second := b.begin("m", now), b.begin("m", now); first != 0 || second != time.Second {
		t.Errorf("two that find out wait %s and %s", first, second)
	}
	state(breakerHalfOpen)
	b.done("m", now, context.Canceled) // it found nothing out; the next may
	if left := b.begin("m", now); left != 0 {
		t.Errorf("the next waits %s", left)
	}
	fail(1)
	if left := b.left("m", now); left != 2*breakFirst {
		t.Errorf("it is open for %s", left)
	}
	for range 10 {
		now = now.Add(b.left("m", now))
		b.begin("m", now)
		fail(1)
	}
	if left := b.left("m", now); left != breakMost {
		t.Errorf("it is open for %s", left)
	}
	now = now.Add(breakMost)
	b.begin("m", now)
	b.done("m", now, nil)
	state(breakerClosed)
	if left := b.begin("m", now); left != 0 || len(b.of) != 0 {
		t.Errorf("it is well, and open for %s", left)
	}
}

// A model that fails is left alone, and who waits is told when to come back; what a
// request brings upon itself opens nothing.
func TestWarmBreaks(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	status := 400
	w.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Status: status} })
	warmer := w.warmer()
	for i := range breakAfter + 1 {
		_ = handle(t.Context(), warmer, asked("user_1", fmt.Sprintf("bad %d", i)))
	}
	status = 500
	for i := range breakAfter {
		if err := handle(t.Context(), warmer, asked("user_1", fmt.Sprintf("title %d", i))); err == nil || errors.Is(err, stream.ErrPause) {
			t.Fatalf("call %d ended with %v", i, err)
		}
	}
	wait := w.listen().Wait(w.view.Name, w.key("user_1", "one more"))
	defer wait.Cancel()
	if err := handle(t.Context(), warmer, asked("user_1", "one more")); !errors.Is(err, stream.ErrLater) {
		t.Errorf("the error is %v", err)
	}
	if n := len(w.model.Calls()); n != 2*breakAfter+1 {
		t.Errorf("the model was called %d times", n)
	}
	if after, why, ok := busy(<-wait.C()); !ok || after <= 0 || after > breakFirst || why != "the model has failed too often" {
		t.Errorf("who waits is told %s, %q, %v", after, why, ok)
	}
}
