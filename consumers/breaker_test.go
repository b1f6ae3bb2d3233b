package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"mythiccache/cache"
	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
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

// of is the n-th question of a scope for a model.
func of(model, scope string, n int) aiData {
	return aiData{model: model, scope: scope, key: fmt.Sprint(scope, n)}
}

// bed is breakers with a clock of their own.
type bed struct {
	*breakers
	t   *testing.T
	now time.Time
}

func newBed(t *testing.T) *bed {
	t.Helper()
	return &bed{newBreakers(func(model string) string { return model }, 90*time.Second), t, time.Unix(1_000_000, 0)}
}

func (b *bed) state(want float64) {
	b.t.Helper()
	if got := valueOf(b.t, b.breakers.state.WithLabelValues("m")); got != want {
		b.t.Errorf("the state is %v, not %v", got, want)
	}
}

// fails has questions of a scope fail, from the first up to another.
func (b *bed) fails(scope string, from, to int) {
	for n := from; n < to; n++ {
		b.done(of("m", scope, n), b.now, fmt.Errorf("ask: %w", &ModelError{Status: 503}))
	}
}

func (b *bed) waits(d aiData, want time.Duration) {
	b.t.Helper()
	if got := b.left(d, b.now); got != want {
		b.t.Errorf("%s waits for %s, not %s", d.key, got, want)
	}
}

func (b *bed) begins(d aiData, want time.Duration) {
	b.t.Helper()
	if got := b.begin(d, b.now); got != want {
		b.t.Errorf("%s waits for %s before it begins, not %s", d.key, got, want)
	}
}

// The questions of one caller that fail keep away that caller's.
func TestBreakerOfACaller(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	again := of("m", "a", 0)
	for range 20 { // the same again and again is one
		b.done(again, b.now, &ModelError{Status: 500})
	}
	b.begins(again, 0)
	for _, harmless := range []error{
		&ModelError{Status: 400}, &ModelError{Status: 429}, nil, // of these the model is well
	} {
		b.done(again, b.now, harmless)
		b.fails("a", 0, breakAfter-1)
		b.begins(again, 0)
	}
	for _, silent := range []error{context.Canceled, errLeaseLost} { // of these nothing is known
		b.done(again, b.now, silent)
	}
	b.done(of("m", "b", 0), b.now, nil) // another's success says nothing of these
	b.fails("a", 50, 51)
	b.state(breakerPartly)
	b.begins(of("m", "a", 99), breakFirst)
	b.begins(of("m", "b", 99), 0)
	b.begins(of("another", "a", 99), 0)

	b.now = b.now.Add(breakFirst)
	b.waits(of("m", "a", 50), breakYield) // what failed is not first to find out
	b.begins(of("m", "a", 99), 0)
	b.begins(of("m", "a", 98), time.Second)
	b.done(of("m", "a", 99), b.now, context.Canceled) // it found nothing out; the next may
	b.begins(of("m", "a", 98), 0)
	b.fails("a", 98, 99)
	b.waits(of("m", "a", 97), 2*breakFirst)
	for n := range 10 {
		b.now = b.now.Add(b.left(of("m", "a", 100+n), b.now))
		b.begins(of("m", "a", 100+n), 0)
		b.fails("a", 100+n, 101+n)
	}
	b.waits(of("m", "a", 97), breakMost)
	b.now = b.now.Add(breakMost + breakYield)
	b.begins(of("m", "a", 50), 0) // nobody else has come
	b.done(of("m", "a", 50), b.now, nil)
	b.state(breakerClosed)
	if b.begins(of("m", "a", 98), 0); len(b.of) != 0 {
		t.Errorf("it is well, and there are %d", len(b.of))
	}
}

// A model at which different callers fail in a row is left alone by all.
func TestBreakerOfAModel(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	innocent := of("m", "innocent", 0)
	for n := range breakAfter {
		b.waits(innocent, 0)
		b.fails(fmt.Sprint("caller", n), 0, 1)
		b.fails(fmt.Sprint("caller", n), 0, 2) // each counts once
	}
	b.state(breakerOpen)
	b.begins(innocent, breakFirst)
	b.begins(of("another", "innocent", 0), 0)
	b.now = b.now.Add(breakFirst)
	b.waits(of("m", "caller1", 9), breakYield)
	b.begins(innocent, 0)
	b.state(breakerPartly)
	b.begins(of("m", "innocent", 1), time.Second)
	b.done(innocent, b.now, nil)
	b.begins(of("m", "caller1", 9), 0)
	b.state(breakerClosed)
}

// However many names callers make up, there is a bound.
func TestBreakersAreBounded(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for n := range maxBreakers {
		b.done(of(fmt.Sprint("m", n), "a", 0), b.now, &ModelError{Status: 500})
	}
	if n := len(b.of); n != maxBreakers {
		t.Errorf("there are %d", n)
	}
	b.now = b.now.Add(2*breakMost + time.Second)
	b.fails("a", 0, breakAfter)
	b.state(breakerPartly)
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

// One caller's questions at which the model fails keep nobody else's away.
func TestWarmPoison(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if strings.HasPrefix(c.Prompt, "poison") {
			return modelserver.Reply{Status: 500}
		}
		return modelserver.Reply{}
	})
	warmer := w.warmer()
	w.run(warmer)
	for i := range 2 * breakAfter {
		w.publish(asked("mallory", fmt.Sprint("poison ", i)))
	}
	testserver.Eventually(t, "mallory is kept away", func() error {
		if warmer.breakers.left(of("test-model", "mallory", -1), time.Now()) == 0 {
			return errNotYet
		}
		return nil
	})
	for i := range 3 {
		w.publish(asked("ann", fmt.Sprint("fine ", i)))
	}
	testserver.Eventually(t, "ann is answered", func() error {
		for i := range 3 {
			if _, _, err := w.read(w.key("ann", fmt.Sprint("fine ", i))); err != nil {
				return err
			}
		}
		return nil
	})
	if warmer.breakers.left(of("test-model", "mallory", -1), time.Now()) == 0 {
		t.Error("it took ann as long as mallory")
	}
}

// by is the n-th question that somebody asks in a scope.
func by(asker, scope string, n int) aiData {
	d := of("m", scope, n)
	d.asker, d.key = asker, asker+d.key
	return d
}

// In a scope that is nobody's those who ask are told apart: one's questions that fail keep
// away that one's, a model at which many fail is left alone, and who has no name is the
// scope. In a user's own scope a name says nothing.
func TestBreakerOfAnAsker(t *testing.T) {
	t.Parallel()
	for _, scope := range []string{cache.SharedScope, cache.AppScope} {
		b := newBed(t)
		fails := func(asker string, times int) {
			for n := range times {
				b.done(by(asker, scope, n), b.now, &ModelError{Status: 500})
			}
		}
		fails("mallory", 2*breakAfter)
		fails("", breakAfter-1)
		b.begins(by("mallory", scope, 99), breakFirst)
		b.begins(by("ann", scope, 0), 0)
		b.begins(by("", scope, 0), 0)
		b.begins(of("m", "mallory", 0), 0)
		fails("", breakAfter)
		b.begins(by("", scope, 0), breakFirst)
		b.begins(by("ann", scope, 0), 0)
		for n := range breakAfter - 2 {
			fails(fmt.Sprint("caller", n), 1)
		}
		b.begins(by("ann", scope, 0), breakFirst)
		b.state(breakerOpen)
	}
	b := newBed(t)
	for n := range breakAfter {
		b.done(by(fmt.Sprint("name", n), "ann", n), b.now, &ModelError{Status: 500})
	}
	b.begins(of("m", "bob", 0), 0)
	b.begins(of("m", "ann", 0), breakFirst)
}

// Beside one whose questions fail all the time, who asks the same shared model is answered.
func TestBreakerOfAnAskerForLong(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	well := 0
	for second := range 600 {
		for half := range 2 {
			bad := by("mallory", cache.SharedScope, 2*second+half)
			if b.begin(bad, b.now) == 0 {
				b.done(bad, b.now, &ModelError{Status: 500})
			}
		}
		good := by("ann", cache.SharedScope, second)
		if b.begin(good, b.now) == 0 {
			b.done(good, b.now, nil)
			well++
		}
		b.now = b.now.Add(time.Second)
	}
	if well != 600 {
		t.Errorf("of 600 questions %d were asked", well)
	}
}

// The one call that finds out has its place to itself as long as a call may take, and
// nobody else's end is taken for its own.
func TestBreakerOfATrial(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.fails("a", 0, breakAfter)
	b.now = b.now.Add(breakFirst)
	b.begins(of("m", "a", 50), 0)
	for _, silent := range []error{context.Canceled, errLeaseLost} { // of what began before it was open
		b.done(of("m", "a", 60), b.now, silent)
		b.begins(of("m", "a", 51), time.Second)
	}
	b.now = b.now.Add(80 * time.Second)
	b.begins(of("m", "a", 51), time.Second)
	b.now = b.now.Add(10 * time.Second) // its end is never told
	b.begins(of("m", "a", 51), 0)
	b.done(of("m", "a", 50), b.now, context.Canceled) // but it is
	b.begins(of("m", "a", 52), time.Second)
	b.done(of("m", "a", 51), b.now, nil)
	b.begins(of("m", "a", 52), 0)
}

// An event says who asks, and it is counted.
func TestWarmCountsAskers(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if strings.HasPrefix(c.Prompt, "poison") {
			return modelserver.Reply{Status: 500}
		}
		return modelserver.Reply{}
	})
	warmer := w.warmer()
	ask := func(asker, prompt string) error {
		data := must(json.Marshal(map[string]string{"scope": cache.SharedScope, "asker": asker, "prompt": prompt}))
		return handle(t.Context(), warmer, event.Event{Type: event.AIRequested, Source: fromAPI, Data: data, Time: time.Now()})
	}
	for i := range breakAfter {
		if err := ask("mallory", fmt.Sprint("poison ", i)); err == nil {
			t.Fatal("it did not fail")
		}
	}
	if err := ask("mallory", "a title"); !errors.Is(err, stream.ErrLater) {
		t.Errorf("mallory's ends with %v", err)
	}
	if err := ask("ann", "a title"); err != nil {
		t.Errorf("ann's ends with %v", err)
	}
	if _, answer, err := w.read(w.key(cache.SharedScope, "a title")); err != nil || answer.Text == "" {
		t.Errorf("the answer is %+v (%v)", answer, err)
	}
	long := event.Event{Type: event.AIRequested, Data: []byte(`{"scope":"\u0000app","prompt":"a","asker":"` + strings.Repeat("a", maxAsker+1) + `"}`)}
	if d, err := warmer.read(long, "1-0"); err != nil || d.asker != "" {
		t.Errorf("a long name is %q (%v)", d.asker, err)
	}
}
