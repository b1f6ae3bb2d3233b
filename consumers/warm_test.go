package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// errNotYet is for testserver.Eventually.
var errNotYet = errors.New("not yet")

// warmth is a Redis, a model, and workers that stand between them as separate
// processes would.
type warmth struct {
	t         *testing.T
	redis     *testserver.Redis
	client    *redis.Client
	model     *modelserver.Server
	view      *view.View
	store     *cache.Store // of nobody who warms
	publisher *stream.Publisher
	keys      stream.Keys
	log       *testserver.Log
	logger    zerolog.Logger
}

func newWarmth(t *testing.T) *warmth {
	t.Helper()
	log := &testserver.Log{}
	w := &warmth{
		t: t, redis: testserver.NewRedis(t), model: modelserver.New(t), keys: stream.NewKeys("mythic:"),
		view: &view.View{Name: "ai_answer", Key: []string{"digest"}, TTL: time.Hour, Negative: 10 * time.Second, Model: true},
		log:  log, logger: zerolog.New(log).Level(zerolog.TraceLevel),
	}
	w.client = w.redis.Client(t)
	w.store = w.newStore()
	if err := w.store.EnsureViews(t.Context(), []*view.View{w.view}, version.Version{}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.publisher, err = stream.NewPublisher(w.dial, w.keys, stream.PublisherOptions{Log: w.logger}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.publisher.Close() })
	return w
}

func (w *warmth) dial(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
	o, err := redis.ParseURL(w.redis.URL())
	if err != nil {
		return nil, err
	}
	o.OnConnect, o.ContextTimeoutEnabled, o.DisableIdentity = onConnect, true, true
	o.MaxRetries, o.DialerRetries = -1, 1
	return redis.NewClient(o), nil
}

func (w *warmth) newStore(change ...func(*cache.Options)) *cache.Store {
	w.t.Helper()
	o := cache.Options{StaleFor: time.Minute, Log: w.logger}
	for _, c := range change {
		c(&o)
	}
	store, err := cache.New(w.dial, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { store.Close() })
	return store
}

// warmer makes a warmer with a store of its own.
func (w *warmth) warmer(change ...func(*WarmerOptions)) *Warmer {
	w.t.Helper()
	o := WarmerOptions{
		View: w.view, Model: newModel(w.t, w.model), Models: testModels(w.t),
		LeaseFor: 300 * time.Millisecond, CallFor: time.Minute, Log: w.logger,
	}
	var err error
	if o.Account, err = NewAccount(AccountOptions{Models: []string{"test-model"}, Metrics: prometheus.NewRegistry()}); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range change {
		c(&o)
	}
	warmer, err := NewWarmer(w.newStore(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return warmer
}

// testModels takes any model, and the tests' own where none is named.
func testModels(t testing.TB) cache.Models {
	t.Helper()
	models, err := cache.ParseModels("test-model", "", "")
	if err != nil {
		t.Fatal(err)
	}
	return models
}

// run has a warmer read the stream, and returns how to stop it.
func (w *warmth) run(warmer *Warmer, change ...func(*stream.SubscriberOptions)) (stop func()) {
	w.t.Helper()
	return w.runHalf("warm", warmer.Handle, change...)
}

// runHalf has half of a warmer read the stream for a group, as the program does.
func (w *warmth) runHalf(group string, handle func(*message.Message) error, change ...func(*stream.SubscriberOptions)) (stop func()) {
	w.t.Helper()
	o := stream.SubscriberOptions{Group: group, Backoff: 20 * time.Millisecond, Log: w.logger}
	for _, c := range change {
		c(&o)
	}
	subscriber, err := stream.NewSubscriber(w.dial, w.keys, o)
	if err != nil {
		w.t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, stream.ZerologAdapter(w.logger))
	if err != nil {
		w.t.Fatal(err)
	}
	router.AddMiddleware(stream.RecordFailure)
	router.AddConsumerHandler(group, event.TopicAI, subscriber, handle)
	ended := make(chan error, 1)
	go func() { ended <- router.Run(context.Background()) }()
	<-router.Running()
	stop = sync.OnceFunc(func() {
		if err := errors.Join(router.Close(), subscriber.Close(), <-ended); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// prompt is the data of an event that asks.
func prompt(scope, text string) json.RawMessage {
	return must(json.Marshal(map[string]string{"scope": scope, "prompt": text}))
}

func (w *warmth) publish(events ...event.Event) {
	w.t.Helper()
	if _, err := w.publisher.Append(w.t.Context(), events...); err != nil {
		w.t.Fatal(err)
	}
}

// key is that of the answer to a prompt.
func (w *warmth) key(scope, text string) string {
	w.t.Helper()
	request, err := cache.ChatRequest(json.RawMessage(must(json.Marshal(map[string]string{"prompt": text}))), "test-model")
	if err != nil {
		w.t.Fatal(err)
	}
	key, _, err := cache.AnswerKey(newModel(w.t, w.model).Name(), scope, request)
	if err != nil {
		w.t.Fatal(err)
	}
	return key
}

// read returns the answer that is cached under a key.
func (w *warmth) read(key string) (cache.Entry, cache.Answer, error) {
	result, err := w.store.Read(w.t.Context(), cache.Query{View: w.view, Key: key})
	if err != nil {
		return cache.Entry{}, cache.Answer{}, err
	}
	if result.Status != cache.Hit {
		return cache.Entry{}, cache.Answer{}, fmt.Errorf("the answer is a %s (%s)", result.Status, result.Why)
	}
	var answer cache.Answer
	err = json.Unmarshal(result.Entry.Body, &answer)
	return result.Entry, answer, err
}

// settled reports, as an error, what of the group is not done.
func (w *warmth) settled() error {
	states, err := stream.Groups(w.t.Context(), w.client, w.keys, []string{event.TopicAI})
	if err != nil {
		return err
	}
	for _, s := range states {
		if s.Lag+s.Pending+s.Parked > 0 {
			return fmt.Errorf("lag %d, pending %d, parked %d: %w", s.Lag, s.Pending, s.Parked, errNotYet)
		}
	}
	return nil
}

// dead returns the dead letters' reasons.
func (w *warmth) dead() []string {
	w.t.Helper()
	letters, err := stream.NewDeadLetters(w.client, w.keys).List(w.t.Context(), stream.Filter{})
	if err != nil {
		w.t.Fatal(err)
	}
	var reasons []string
	for _, l := range letters {
		reasons = append(reasons, l.Reason)
	}
	return reasons
}

// listen runs waiters until the test ends.
func (w *warmth) listen() *cache.Waiters {
	w.t.Helper()
	waiters := w.store.NewWaiters()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- waiters.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-ended })
	testserver.Eventually(w.t, "waiters listen", waiters.Ready)
	return waiters
}

// handle hands a warmer an event without a stream.
func handle(ctx context.Context, warmer *Warmer, e event.Event) error {
	m := stream.FromEvent(e)
	m.SetContext(ctx)
	return warmer.Handle(m)
}

func asked(scope, text string) event.Event {
	return event.Event{Type: event.AIRequested, Data: prompt(scope, text), Time: time.Now()}
}

// oneMore is another event that says the same.
func oneMore(e event.Event) event.Event {
	e.Time = e.Time.Add(time.Second)
	return e
}

// everythingExpires looks at every key.
func (w *warmth) everythingExpires() {
	w.t.Helper()
	keys, err := w.client.Keys(w.t.Context(), "*").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, key := range keys {
		if strings.HasPrefix(key, "mythic:{stream}:") || strings.HasPrefix(key, "mythic:view:") {
			continue
		}
		if ttl := w.client.PTTL(w.t.Context(), key).Val(); ttl <= 0 {
			w.t.Errorf("%s has no TTL (%v)", key, ttl)
		}
	}
}

func TestWarmOnceForAll(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	release := make(chan struct{})
	w.model.Respond(func(modelserver.Call) modelserver.Reply {
		return modelserver.Reply{Text: "Salt and Light", Hold: release}
	})
	waiters := w.listen()
	key := w.key("user_1", "a title")
	var waits []*cache.Wait
	for range 5 {
		wait := waiters.Wait(w.view.Name, key)
		t.Cleanup(wait.Cancel)
		waits = append(waits, wait)
	}
	var warmers []*Warmer
	for range 3 {
		warmer := w.warmer()
		warmers = append(warmers, warmer)
		w.run(warmer)
	}
	var sending sync.WaitGroup
	for i := range 100 {
		sending.Go(func() {
			e := asked("user_1", "a title")
			if i%2 == 1 { // another way to write the same
				e.Data = json.RawMessage(`{"request": {"stream":true,"messages":[{"content":"a title","role":"user"}],"model":"test-model","user":"u"}, "scope":"user_1"}`)
			}
			if _, err := w.publisher.Append(t.Context(), e); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
	<-w.model.Arrived()
	testserver.Eventually(t, "all have joined the first", func() error {
		states, err := stream.Groups(t.Context(), w.client, w.keys, []string{event.TopicAI})
		if err != nil || len(states) != 1 || states[0].Lag != 0 || states[0].Pending != 1 || states[0].Parked != 0 {
			return fmt.Errorf("%+v: %w", states, errors.Join(errNotYet, err))
		}
		return nil
	})
	// Longer than the lease lives without being renewed.
	began := time.Now()
	testserver.Eventually(t, "leases would have run out", func() error {
		if time.Since(began) < 700*time.Millisecond {
			return errNotYet
		}
		return nil
	})
	close(release)
	for _, wait := range waits {
		if got := <-wait.C(); got.Outcome != cache.Accepted || !strings.Contains(string(got.Entry.Body), "Salt and Light") {
			t.Errorf("a waiter heard %c: %s", got.Outcome, got.Reason)
		}
	}
	testserver.Eventually(t, "all events are done", w.settled)
	if n := len(w.model.Calls()); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
	if dead := w.dead(); len(dead) > 0 {
		t.Errorf("dead letters: %q", dead)
	}
	entry, answer, err := w.read(key)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Key != key || answer.Text != "Salt and Light" || answer.Model != "test-model" || answer.Created == 0 {
		t.Errorf("the answer is %+v", answer)
	}
	if !entry.Owned || entry.Owner != "user_1" {
		t.Errorf("the answer belongs to %q", entry.Owner)
	}
	if life := entry.FreshUntil.Sub(entry.Saved); life > time.Hour || life < 50*time.Minute {
		t.Errorf("the answer lives for %s", life)
	}
	var sum cache.AIReport
	for _, warmer := range warmers {
		r := warmer.account.Report()
		sum.Calls += r.Calls
		sum.Hits += r.Hits
		sum.TokensSpent += r.TokensSpent
		sum.TokensSaved += r.TokensSaved
	}
	if want := (cache.AIReport{Calls: 1, Hits: 99, TokensSpent: 5, TokensSaved: 99 * 5}); sum != want {
		t.Errorf("the accounts say %+v, not %+v", sum, want)
	}
	w.everythingExpires()
}

func TestWarmKeepsScopesApart(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	for _, scope := range []string{"user_1", "user_2"} {
		if err := handle(t.Context(), warmer, asked(scope, "a title")); err != nil {
			t.Fatal(err)
		}
		if entry, _, err := w.read(w.key(scope, "a title")); err != nil || entry.Owner != scope {
			t.Errorf("the answer of %s belongs to %q (%v)", scope, entry.Owner, err)
		}
	}
	// A hand-written event may name its scope as its subject.
	err := handle(t.Context(), warmer, event.Event{Type: event.AIRequested, Subject: "user_2", Data: json.RawMessage(`{"prompt":"a title"}`)})
	if err != nil || len(w.model.Calls()) != 2 {
		t.Errorf("the model was called %d times (%v)", len(w.model.Calls()), err)
	}
}

func TestWarmFailureIsNotCached(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		if c.Number == 1 {
			return modelserver.Reply{Status: 500, Message: c.Prompt}
		}
		return modelserver.Reply{Text: "at last"}
	})
	wait := w.listen().Wait(w.view.Name, w.key("user_1", "a title"))
	defer wait.Cancel()
	warmer := w.warmer()
	err := handle(t.Context(), warmer, asked("user_1", "a title"))
	if err == nil || errors.Is(err, stream.ErrReject) || errors.Is(err, stream.ErrPause) {
		t.Fatalf("the error is %v", err)
	}
	got := <-wait.C()
	if got.Outcome != cache.Failed || !strings.Contains(got.Reason, "status 500") || strings.HasPrefix(got.Reason, cache.AnswerRefused) {
		t.Errorf("what was announced is %c: %s", got.Outcome, got.Reason)
	}
	if _, _, err := w.read(w.key("user_1", "a title")); err == nil {
		t.Error("the failure is cached")
	}
	w.run(warmer)
	w.publish(asked("user_1", "a title"))
	testserver.Eventually(t, "the event is done", func() error {
		if len(w.model.Calls()) < 2 {
			return errNotYet
		}
		return w.settled()
	})
	if _, answer, err := w.read(w.key("user_1", "a title")); err != nil || answer.Text != "at last" {
		t.Errorf("the answer is %+v (%v)", answer, err)
	}
	if n := len(w.model.Calls()); n != 2 {
		t.Errorf("the model was called %d times", n)
	}
}

// What failed a moment ago is not tried again by the next event at once.
func TestWarmSparesAFailingModel(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	key := "mythic:ai_failed:{" + w.key("user_1", "a title") + "}"
	if err := w.client.Set(t.Context(), key, "the model answered with an error (status 500)", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	err := handle(t.Context(), w.warmer(), asked("user_1", "a title"))
	if err == nil || errors.Is(err, stream.ErrReject) || !strings.Contains(err.Error(), "status 500") {
		t.Errorf("the error is %v", err)
	}
	if n := len(w.model.Calls()); n != 0 {
		t.Errorf("the model was called %d times", n)
	}
}

func TestWarmRefusalIsFinal(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		return modelserver.Reply{Status: 400, Code: "context_length_exceeded", Message: c.Prompt}
	})
	key := w.key("user_1", "a title")
	wait := w.listen().Wait(w.view.Name, key)
	defer wait.Cancel()
	w.run(w.warmer())
	w.publish(asked("user_1", "a title"), asked("user_1", "a title"), asked("user_1", "a title"))
	got := <-wait.C()
	if got.Outcome != cache.Failed || got.Reason != cache.AnswerRefused+"the model answered with an error (status 400) (context_length_exceeded)" {
		t.Errorf("what was announced is %c: %s", got.Outcome, got.Reason)
	}
	testserver.Eventually(t, "the events are done", w.settled)
	if dead := w.dead(); len(dead) > 0 { // or any caller could fill Redis with them
		t.Errorf("dead letters: %q", dead)
	}
	if n := len(w.model.Calls()); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
	if _, _, err := w.read(key); err == nil {
		t.Error("the refusal is cached")
	}
	// It is remembered for a while, by all processes.
	again := w.listen().Wait(w.view.Name, key)
	defer again.Cancel()
	if err := handle(t.Context(), w.warmer(), asked("user_1", "a title")); err != nil {
		t.Errorf("asked again, the error is %v", err)
	}
	if got := <-again.C(); got.Outcome != cache.Failed || !strings.HasPrefix(got.Reason, cache.AnswerRefused) {
		t.Errorf("asked again, who waits hears %c: %s", got.Outcome, got.Reason)
	}
	if n := len(w.model.Calls()); n != 1 {
		t.Errorf("asked again, the model was called %d times", n)
	}
	answers := w.store.NewAnswers(w.view)
	if state, err := answers.Asked(t.Context(), "user_1", key); err != nil || !strings.Contains(state.Refused, "status 400") || state.Pending {
		t.Errorf("who asked is told %+v (%v)", state, err)
	}
	if state, err := answers.Asked(t.Context(), "user_2", key); err != nil || state != (cache.Asked{}) {
		t.Errorf("another is told %+v (%v)", state, err)
	}
	w.everythingExpires()
}

func TestWarmHeedsRetryAfter(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	var mu sync.Mutex
	var times []time.Time
	w.model.Respond(func(c modelserver.Call) modelserver.Reply {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, time.Now())
		if len(times) == 1 {
			return modelserver.Reply{Status: 429, Code: "rate_limit_exceeded", RetryAfter: time.Second}
		}
		return modelserver.Reply{}
	})
	// One delivery: whatever costs one would be a dead letter.
	warmer := w.warmer()
	w.run(warmer, func(o *stream.SubscriberOptions) { o.MaxDeliveries = 1 })
	w.publish(asked("user_1", "a title"))
	testserver.Eventually(t, "the pause begins", func() error {
		if warmer.pauses.left("test-model", time.Now()) <= 0 {
			return errNotYet
		}
		return nil
	})
	w.publish(asked("user_1", "another title"))
	testserver.Eventually(t, "both are answered", func() error {
		_, _, errA := w.read(w.key("user_1", "a title"))
		_, _, errB := w.read(w.key("user_1", "another title"))
		return errors.Join(errA, errB, w.settled())
	})
	mu.Lock()
	defer mu.Unlock()
	if len(times) != 3 || times[1].Sub(times[0]) < 900*time.Millisecond {
		t.Errorf("the model was called at %v", times)
	}
	if dead := w.dead(); len(dead) > 0 {
		t.Errorf("dead letters: %q", dead)
	}
}

// Between a worker's look for the answer and its lease, another may have put it.
func TestWarmLooksAgainUnderItsLease(t *testing.T) {
	t.Parallel()
	w := newWarmth(t)
	warmer := w.warmer()
	e := asked("user_1", "a title")
	if err := handle(t.Context(), warmer, e); err != nil {
		t.Fatal(err)
	}
	d, err := warmer.read(e, "1-0")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := w.store.Lease(t.Context(), w.view, d.key, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := warmer.lead(t.Context(), d, lease); err != nil {
		t.Error(err)
	}
	if n := len(w.model.Calls()); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
	if _, err := w.store.Lease(t.Context(), w.view, d.key, time.Second); err != nil {
		t.Errorf("the lease was kept: %v", err)
	}
}
