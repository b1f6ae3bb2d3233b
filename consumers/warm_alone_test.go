package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// crowded is a model that has no time for some questions, and says when to come back in
// less than the whole seconds of the header.
type crowded struct {
	after time.Duration

	mu    sync.Mutex
	calls map[string][]time.Time // of each question
	error ModelError             // of those it has no time for
	takes func(request string) bool
}

func newCrowded(after time.Duration, takes func(string) bool) *crowded {
	return &crowded{
		after: after, calls: map[string][]time.Time{}, takes: takes,
		error: ModelError{Status: 429, Code: "rate_limit_exceeded", Why: "answered with an error"},
	}
}

func (*crowded) Name() string { return "crowded" }

func (c *crowded) Answer(_ context.Context, request json.RawMessage, tell func(cache.FlowPart)) (cache.Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[string(request)] = append(c.calls[string(request)], time.Now())
	if !c.takes(string(request)) {
		refused := c.error
		refused.RetryAfter = c.after
		return cache.Answer{}, &refused
	}
	tell(cache.FlowPart{ID: "1", Delta: json.RawMessage(`{"content":"yes"}`)})
	return cache.Answer{Text: "yes", FinishReason: "stop", Model: "test-model"}, nil
}

// of returns when the model was asked what holds a text.
func (c *crowded) of(text string) (times []time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for request, calls := range c.calls {
		if strings.Contains(request, text) {
			times = append(times, calls...)
		}
	}
	return times
}

// take says which questions the model takes from now on.
func (c *crowded) take(takes func(string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.takes = takes
}

func all(string) bool     { return true }
func none(string) bool    { return false }
func small(q string) bool { return !strings.Contains(q, "too large") }

// refusedOnce waits until a question was refused so often, and the model is left alone no more.
func (w *warmth) refusedOnce(warmer *Warmer, model *crowded, text string, times int) {
	w.t.Helper()
	testserver.Eventually(w.t, "it is refused, and the model left alone no more", func() error {
		d, err := w.store.NewAnswers(w.view).Deferred(w.t.Context(), w.keyOf(model, text))
		if d.Times < times || warmer.pauses.left("test-model", time.Now()) > 0 {
			return errors.Join(errNotYet, err)
		}
		return err
	})
}

// One question for which a provider never has time costs all others a pause, once, and
// is given up when it was asked as often as other events are tried.
func TestWarmLeavesOneQuestionAlone(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	model := newCrowded(100*time.Millisecond, small)
	warmer := w.warmer(func(o *WarmerOptions) { o.Model = model })
	const deliveries = 3
	w.run(warmer, func(o *stream.SubscriberOptions) { o.MaxDeliveries = deliveries })
	w.publish(asked("user_1", "too large"))
	w.refusedOnce(warmer, model, "too large", 1)
	for n := 0; len(w.dead()) == 0; n++ {
		if err := handle(t.Context(), warmer, asked(fmt.Sprint("user_", n), "a title")); err != nil {
			t.Fatalf("question %d of others ends with %v", n, err)
		}
		if n > 100_000 {
			t.Fatal("it is not given up")
		}
	}
	times := model.of("too large")
	if len(times) != 1+deliveries {
		t.Errorf("the model was asked %d times", len(times))
	}
	for i := 1; i < len(times); i++ {
		if gap, least := times[i].Sub(times[i-1]), model.after<<(i-1); gap < least {
			t.Errorf("call %d came after %s, not %s", i, gap, least)
		}
	}
	if dead := w.dead(); !strings.Contains(dead[0], "status 429") || strings.Contains(dead[0], "too large") {
		t.Errorf("the dead letter says %q", dead)
	}
	w.everythingExpires()
}

// So it is where a provider says 503, and when to come back.
func TestWarmLeavesOneFailureAlone(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	model := newCrowded(50*time.Millisecond, small)
	model.error.Status = 503
	warmer := w.warmer(func(o *WarmerOptions) { o.Model = model })
	e := asked("user_1", "too large")
	w.proven(warmer, model, e, "too large")
	if err := w.client.Del(t.Context(), "mythic:ai_failed:{"+w.keyOf(model, "too large")+"}").Err(); err != nil {
		t.Fatal(err)
	}
	w.due(model, "too large")
	if err := handle(t.Context(), warmer, e); err == nil || errors.Is(err, stream.ErrPause) {
		t.Errorf("it ends with %v", err)
	}
	if n := len(model.of("too large")); n != 2 {
		t.Errorf("the model was asked %d times", n)
	}
	var times, at, until int64
	noted := w.client.Get(t.Context(), "mythic:ai_deferred:{"+w.keyOf(model, "too large")+"}").Val()
	if _, err := fmt.Sscan(noted, &times, &at, &until); err != nil || times != 2 || until-at != 2*model.after.Milliseconds() {
		t.Errorf("what is noted of it is %q (%v)", noted, err)
	}
	if err := handle(t.Context(), warmer, asked("user_1", "another")); err != nil {
		t.Errorf("another question ends with %v", err)
	}
}

// A provider that has no time for anybody is left alone by all, and no question pays for
// that, however often it was asked.
func TestWarmLeavesAFullModelAlone(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	model := newCrowded(500*time.Millisecond, none)
	warmer := w.warmer(func(o *WarmerOptions) { o.Model = model })
	w.run(warmer, func(o *stream.SubscriberOptions) { o.MaxDeliveries = 1 })
	w.publish(asked("user_1", "one"))
	for n := range 2 { // it is asked again, and again the model is left alone
		testserver.Eventually(t, "it is refused", func() error {
			d, err := w.store.NewAnswers(w.view).Deferred(t.Context(), w.keyOf(model, "one"))
			if d.Times <= n {
				return errors.Join(errNotYet, err)
			}
			return err
		})
		if err := handle(t.Context(), warmer, asked("user_2", fmt.Sprint("another ", n))); !errors.Is(err, stream.ErrLater) {
			t.Errorf("another question meanwhile ends with %v", err)
		}
	}
	if n := len(model.of("another")); n != 0 {
		t.Errorf("others were asked %d times", n)
	}
	model.take(all)
	testserver.Eventually(t, "it is answered", func() error {
		_, err := w.readOf("one", model)
		return errors.Join(err, w.settled())
	})
	if dead := w.dead(); len(dead) > 0 {
		t.Errorf("dead letters: %q", dead)
	}
	if left, err := w.store.NewAnswers(w.view).Deferred(t.Context(), w.keyOf(model, "one")); err != nil || left != (cache.Deferral{}) {
		t.Errorf("once it is answered, it is left alone for %+v (%v)", left, err)
	}
}

// keyOf is the key of the answer of another model than the usual one.
func (w *warmth) keyOf(model Model, text string) string {
	w.t.Helper()
	body, err := cache.ChatRequest(json.RawMessage(must(json.Marshal(map[string]string{"prompt": text}))), "test-model")
	if err != nil {
		w.t.Fatal(err)
	}
	key, _, err := cache.AnswerKey(model.Name(), "user_1", body)
	if err != nil {
		w.t.Fatal(err)
	}
	return key
}

func (w *warmth) readOf(text string, model Model) (cache.Answer, error) {
	_, answer, err := w.read(w.keyOf(model, text))
	return answer, err
}

// proven has a question asked for which the model has no time, and then one that it takes.
func (w *warmth) proven(warmer *Warmer, model *crowded, e event.Event, text string) {
	w.t.Helper()
	w.refusedOnce(warmer, model, text, 0)
	_ = handle(w.t.Context(), warmer, e)
	w.refusedOnce(warmer, model, text, 1)
	if err := handle(w.t.Context(), warmer, asked("another", "before "+text[len("too large"):])); err != nil {
		w.t.Fatal(err)
	}
}

// due waits until a question may be asked.
func (w *warmth) due(model *crowded, text string) {
	w.t.Helper()
	testserver.Eventually(w.t, "it may be asked", func() error {
		d, err := w.store.NewAnswers(w.view).Deferred(w.t.Context(), w.keyOf(model, text))
		if d.Left > 0 {
			return errNotYet
		}
		return err
	})
}

// A question is refused alone where it was so before, and others' calls have begun since and
// were taken.
func TestPausesSpare(t *testing.T) {
	now := time.Now()
	ago := func(n int) time.Time { return now.Add(-time.Duration(n) * time.Second) }
	for what, c := range map[string]struct {
		times, since  int // of the question before; seconds
		refused, well int // the model's last call of either kind, seconds ago; 0: none
		alone         bool
	}{
		"again":                                {times: 1, since: 10, refused: 10, well: 5, alone: true},
		"for the first time":                   {refused: 10, well: 5},
		"of a model that nothing is known of":  {times: 1, since: 10},
		"again by another process":             {times: 2, since: 10, well: 5, alone: true},
		"and nothing was taken since":          {times: 2, since: 10, well: 20},
		"and another was refused since":        {times: 2, since: 10, refused: 3, well: 5},
		"and what was taken began before that": {times: 2, since: 10, refused: 10, well: 11},
	} {
		p := newPauses()
		if c.refused > 0 {
			p.extend("m", ago(c.refused), time.Second)
		}
		if c.well > 0 {
			p.took("m", ago(c.well))
			p.took("m", ago(c.well+1)) // one that began before and was slower
		}
		before := cache.Deferral{Times: c.times, Since: time.Duration(c.since) * time.Second}
		if alone := p.spares("m", now, before); alone != c.alone {
			t.Errorf("%s: it is alone: %v", what, alone)
		}
		if c.alone && p.spares("m", now.Add(time.Second), before) {
			t.Errorf("%s: so is the next at once, of which nobody can tell", what)
		}
	}
}

// Whoever asks the same again, in whatever way, is told, and the model is not asked before
// the question's time has come.
func TestWarmDefersAQuestionForAll(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	model := newCrowded(100*time.Millisecond, small)
	change := func(o *WarmerOptions) { o.Model = model }
	warmer, other := w.warmer(change), w.warmer(change)
	first := asked("user_1", "too large")
	w.proven(warmer, model, first, "too large")
	answers, key := w.store.NewAnswers(w.view), w.keyOf(model, "too large")
	if err := answers.Defer(t.Context(), key, 3, 40*time.Second); err != nil {
		t.Fatal(err)
	}
	heard := w.listen().Wait(w.view.Name, key)
	defer heard.Cancel()
	once := oneMore(first)
	once.Source, once.Data = fromAPI, json.RawMessage(strings.Replace(string(first.Data), `{`, `{"no_store":true,"nonce":"n",`, 1))
	ahead := oneMore(first)
	ahead.Data = json.RawMessage(strings.Replace(string(first.Data), `{`, `{"warm":true,`, 1))
	users := oneMore(first)
	users.Source = fromAPI
	for what, e := range map[string]event.Event{"once": once, "ahead": ahead, "a user's": users, "the app's": oneMore(first)} {
		for _, by := range []*Warmer{warmer, other} {
			if err := handle(t.Context(), by, e); (err != nil) != (what != "once") || err != nil && !errors.Is(err, stream.ErrLater) {
				t.Errorf("%s ends with %v", what, err)
			}
		}
	}
	if after, why, ok := busy(<-heard.C()); !ok || after < 30*time.Second || !strings.Contains(why, "this question") {
		t.Errorf("who waits is told %s, %q", after, why)
	}
	if n := len(model.of("too large")); n != 1 {
		t.Errorf("the model was asked %d times", n)
	}
	if n := dropped(t, warmer, "busy"); n != 1 {
		t.Errorf("%v were dropped that are for who waits alone", n)
	}
	if err := handle(t.Context(), warmer, asked("user_1", "small")); err != nil {
		t.Errorf("another question of the same asker ends with %v", err)
	}
	// It does not come back before there is something to come back for.
	w.run(warmer)
	w.publish(oneMore(first))
	testserver.Eventually(t, "it is put off", func() error {
		parked, err := w.client.ZRangeWithScores(t.Context(), w.keys.Parked("warm", event.TopicAI), 0, -1).Result()
		// What is taken and not answered yet has half a millisecond in its time.
		if err != nil || len(parked) == 0 || parked[0].Score != math.Trunc(parked[0].Score) {
			return errors.Join(errNotYet, err)
		}
		if in := time.Until(time.UnixMilli(int64(parked[0].Score))); in < lookAgain {
			t.Errorf("it comes back in %s", in)
		}
		return nil
	})
}

// Each kind of question ends that is refused alone.
func TestWarmGivesUpWhatIsRefusedAlone(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	model := newCrowded(50*time.Millisecond, small)
	warmer := w.warmer(func(o *WarmerOptions) { o.Model = model })
	waiters, answers := w.listen(), w.store.NewAnswers(w.view)
	for what, c := range map[string]struct {
		source, more string
		age          time.Duration
		proven       bool
		letter, told bool // what its last delivery ends in
		pause        bool // it costs no delivery
	}{
		"a user's, proven":              {source: fromAPI, proven: true, told: true},
		"ahead":                         {source: "template", more: `"warm":true,`, proven: true},
		"the app's, proven":             {source: "books", proven: true, letter: true},
		"a user's, unproven":            {source: fromAPI, pause: true},
		"the app's, of now, unproven":   {source: "books", pause: true},
		"the app's, unproven for a day": {source: "books", age: unprovenFor + time.Minute, letter: true},
	} {
		text := "too large, " + what
		e := asked("user_1", text)
		e.Source, e.Time = c.source, e.Time.Add(-c.age)
		e.Data = json.RawMessage(strings.Replace(string(e.Data), `{`, `{`+c.more, 1))
		w.proven(warmer, model, e, text)
		key := w.keyOf(model, text)
		w.due(model, text)
		if !c.proven { // the model has said since that it has no time
			warmer.pauses.extend("test-model", time.Now(), time.Nanosecond)
		}
		if err := answers.Ask(t.Context(), "user_1", key); err != nil {
			t.Fatal(err)
		}
		heard := waiters.Wait(w.view.Name, key)
		d, err := warmer.read(e, fmt.Sprint(e.Time.UnixMilli(), "-0"))
		if err != nil {
			t.Fatal(err)
		}
		d.deliveries = mostTries
		before := dropped(t, warmer, "failed")
		err = warmer.conclude(e, d, warmer.admit(t.Context(), d))
		if is := errors.Is(err, stream.ErrPause); is != c.pause {
			t.Errorf("%s: it is put off: %v (%v)", what, is, err)
		}
		if is := err != nil && !errors.Is(err, stream.ErrPause); is != c.letter {
			t.Errorf("%s: it ends in a letter: %v (%v)", what, is, err)
		}
		if is := dropped(t, warmer, "failed") > before; is != (!c.letter && !c.pause) {
			t.Errorf("%s: it is counted: %v", what, is)
		}
		if state, err := answers.Asked(t.Context(), "user_1", key); err != nil || (state.Dropped != "") != c.told {
			t.Errorf("%s: who asked is told %+v (%v)", what, state, err)
		}
		if after, _, ok := busy(<-heard.C()); !ok || after > time.Minute {
			t.Errorf("%s: who waits is told %s, %v", what, after, ok)
		}
		heard.Cancel()
		if n := len(model.of(text)); n != 2 {
			t.Errorf("%s: the model was asked %d times", what, n)
		}
	}
}

// An account without money is told at once, and the model is not asked on. The app's own
// questions end in a letter, since they were right.
func TestWarmTellsOfNoMoney(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	model := newCrowded(0, none)
	model.error.Code = "insufficient_quota"
	warmer := w.warmer(func(o *WarmerOptions) { o.Model = model })
	w.run(warmer, func(o *stream.SubscriberOptions) { o.Backoff = time.Millisecond })
	heard := w.listen().Wait(w.view.Name, w.keyOf(model, "a user's"))
	defer heard.Cancel()
	users := asked("user_1", "a user's")
	users.Source = fromAPI
	w.publish(users)
	if got := <-heard.C(); got.Reason != cache.AnswerRefused+"the model answered with an error (status 429) (insufficient_quota)" {
		t.Errorf("who waits is told %q", got.Reason)
	}
	testserver.Eventually(t, "it is done", w.settled)
	if dead := w.dead(); len(dead) > 0 {
		t.Errorf("dead letters: %q", dead)
	}
	w.publish(asked("user_1", "the app's"))
	testserver.Eventually(t, "the app has a letter", func() error {
		if len(w.dead()) == 0 {
			return errNotYet
		}
		return w.settled()
	})
	w.publish(oneMore(users))
	testserver.Eventually(t, "it is done once more", func() error {
		if dropped(t, warmer, "refused") == 0 {
			return errNotYet
		}
		return w.settled()
	})
	if dead := w.dead(); len(dead) != 1 || !strings.Contains(dead[0], "insufficient_quota") {
		t.Errorf("dead letters: %q", dead)
	}
	if n := len(model.of("")); n != 2 {
		t.Errorf("the model was asked %d times", n)
	}
	if left := warmer.pauses.left("test-model", time.Now()); left > 0 {
		t.Errorf("the model is left alone for %s", left)
	}
}

// TestWarmTellsWhoComesBackForARefusal that nobody makes an answer, once the refusal itself
// is forgotten.
func TestWarmTellsWhoComesBackForARefusal(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	model := newCrowded(time.Millisecond, small)
	warmer := w.warmer(func(o *WarmerOptions) { o.Model = model })
	answers, key := w.store.NewAnswers(w.view), w.keyOf(model, "no")
	e := asked("user_1", "no")
	for _, err := range []error{
		answers.Fail(t.Context(), "user_1", key, cache.Failure{Reason: "no", Final: true}),
		answers.Ask(t.Context(), "user_1", key), // somebody polls
		handle(t.Context(), warmer, e),
		w.client.Del(t.Context(), "mythic:ai_failed:{"+key+"}").Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, err := answers.Asked(t.Context(), "user_1", key); err != nil || got.Pending {
		t.Errorf("who comes back is told %+v (%v)", got, err)
	}
}
