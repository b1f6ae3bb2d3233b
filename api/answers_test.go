package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
)

// heard is what an event of the topic ai asks.
type heard struct {
	Scope   string          `json:"scope"`
	Request json.RawMessage `json:"request"`
	NoStore bool            `json:"no_store"`
	Nonce   string          `json:"nonce"`
	key     string
}

// answerer handles the questions in the real stream, in their order, with
// whatever the function does about each.
func (w *world) answerer(handle func(q heard)) {
	w.run(func(ctx context.Context) {
		last := "0"
		for ctx.Err() == nil {
			streams, err := w.client.XRead(ctx, &redis.XReadArgs{Streams: []string{"mythic:{stream}:ai", last}, Block: 20 * time.Millisecond}).Result()
			if err != nil {
				continue // nothing new, or the end
			}
			for _, message := range streams[0].Messages {
				last = message.ID
				q := heard{}
				data, _ := message.Values[event.FieldData].(string)
				if err := json.Unmarshal([]byte(data), &q); err != nil {
					w.t.Error(err)
				}
				if q.NoStore {
					q.key, _, err = cache.OneTimeKey("demo", q.Scope, q.Nonce, q.Request)
				} else {
					q.key, _, err = cache.AnswerKey("demo", q.Scope, q.Request)
				}
				if err != nil {
					w.t.Error(err)
				}
				handle(q)
			}
		}
	})
}

// say stores an answer, as a worker does. It runs beside the test.
func (w *world) say(q heard, text string) {
	body, err := cache.Answer{Key: q.key, Model: "demo", Text: text, FinishReason: "stop", Created: 1}.Encode()
	if err != nil {
		w.t.Error(err)
	}
	lease, err := w.store.Lease(context.Background(), w.view("ai_answer"), q.key, time.Minute)
	if err != nil {
		w.t.Error(err)
		return
	}
	if _, err := w.store.Put(context.Background(), lease, cache.Fill{Owner: q.Scope, Owned: true, Body: body}); err != nil {
		w.t.Error(err)
	}
}

// decline has a question fail, as a worker does.
func (w *world) decline(q heard, f cache.Failure) {
	lease, err := w.store.Lease(context.Background(), w.view("ai_answer"), q.key, time.Minute)
	if err != nil {
		w.t.Error(err)
		return
	}
	if err := w.store.NewAnswers(w.view("ai_answer")).Fail(context.Background(), q.Scope, q.key, f); err != nil {
		w.t.Error(err)
	}
	reason := f.Reason
	if f.Final {
		reason = cache.AnswerRefused + reason
	}
	if err := w.store.Abandon(context.Background(), lease, reason); err != nil {
		w.t.Error(err)
	}
}

func (w *world) ask(body, user string, headers ...string) *answer {
	w.t.Helper()
	return w.do(http.MethodPost, "/ai/answers", body, append(headers, "Authorization", token(w.t, user))...)
}

const titlePrompt = `{"prompt":"a title <&>"}`

// keyOf is the key of a prompt for a user.
func keyOf(t testing.TB, body, user string) string {
	t.Helper()
	request, err := cache.ChatRequest(json.RawMessage(body), "demo")
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := cache.AnswerKey("demo", user, request)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func textOf(t *testing.T, a *answer) string {
	t.Helper()
	var got cache.Answer
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return got.Text
}

func TestAnAnswerIsMadeAndThenThere(t *testing.T) {
	w := begin(t)
	w.answerer(func(q heard) { w.say(q, "for "+q.Scope) })
	key := keyOf(t, titlePrompt, "user_1")
	a := w.ask(titlePrompt, "user_1", "Prefer", "wait=10")
	a.wants(t, 200, map[string]string{
		"X-Cache": "MISS", "Cache-Status": "mythic-cache; fwd=uri-miss; .*stored.*", "Content-Location": "/ai/answers/" + key, "Location": "",
	})
	if got := textOf(t, a); got != "for user_1" {
		t.Errorf("the answer is %q", got)
	}
	// The same question, however it is written, and its own path.
	same := `{ "model":"demo", "user":"x", "stream":false, "messages":[{"content":"a title <&>","role":"user"}] }`
	a = w.ask(same, "user_1", "If-None-Match", a.Header.Get("ETag"))
	a.wants(t, 200, map[string]string{"X-Cache": "HIT", "Content-Location": "/ai/answers/" + key})
	a = w.get("/ai/answers/"+key, "Authorization", token(t, "user_1"))
	a.wants(t, 200, map[string]string{"X-Cache": "HIT", "Cache-Control": "private, .*"})
	w.get("/ai/answers/"+key, "Authorization", token(t, "user_1"), "If-None-Match", a.Header.Get("ETag")).wants(t, 304, nil)
	events := w.events.all()
	if len(events) != 1 || events[0].Type != event.AIRequested || events[0].Subject != "user_1" {
		t.Fatalf("the events are %+v", events)
	}
	want := `{"scope":"user_1","awaits":"` + keyOf(t, `{"messages":[{"content":"a title <&>","role":"user"}]}`, "user_1") + `","request":{"messages":[{"content":"a title <&>","role":"user"}],"model":"demo"}}`
	if string(events[0].Data) != want {
		t.Errorf("the question is %s", events[0].Data)
	}
}

// What was there when it was asked for is counted as spared; looking it up by its
// key would never have asked the model.
func TestAnswersThatWereThereAreCounted(t *testing.T) {
	var mu sync.Mutex
	var spared []string
	w := begin(t, func(o *Options) {
		o.Spared = func(scope, model string, usage cache.Usage) {
			mu.Lock()
			defer mu.Unlock()
			spared = append(spared, fmt.Sprint(scope, " ", model, " ", usage.TotalTokens))
		}
	})
	w.answerer(func(q heard) { w.say(q, "for "+q.Scope) })
	made := w.ask(titlePrompt, "user_1", "Prefer", "wait=10")
	w.get("/ai/answers/"+keyOf(t, titlePrompt, "user_1"), "Authorization", token(t, "user_1")).wants(t, 200, nil)
	for range 2 {
		w.ask(titlePrompt, "user_1").wants(t, 200, map[string]string{"X-Cache": "HIT"})
	}
	mu.Lock()
	defer mu.Unlock()
	var first cache.Answer
	if err := json.Unmarshal(made.body, &first); err != nil || first.Model == "" {
		t.Fatalf("what was made is %s (%v)", made.body, err)
	}
	if want := fmt.Sprint("user_1 ", first.Model, " ", first.Usage.TotalTokens); len(spared) != 2 || spared[0] != want || spared[1] != want {
		t.Errorf("spared: %q", spared)
	}
}

func TestAnswersBelongToWhoAsked(t *testing.T) {
	w := begin(t)
	w.answerer(func(q heard) { w.say(q, "for "+q.Scope) })
	for _, user := range []string{"user_1", "user_2"} {
		if got := textOf(t, w.ask(titlePrompt, user, "Prefer", "wait=10")); got != "for "+user {
			t.Errorf("%s is told %q", user, got)
		}
	}
	mine := "/ai/answers/" + keyOf(t, titlePrompt, "user_1")
	hidden := w.get(mine, "Authorization", token(t, "user_2"))
	hidden.wants(t, 404, map[string]string{"ETag": "", "Age": ""})
	missing := w.get("/ai/answers/"+strings.Repeat("0", 64), "Authorization", token(t, "user_2"))
	missing.wants(t, 404, nil)
	if !bytes.Equal(hidden.body, missing.body) {
		t.Errorf("another's answer is %s, and none is %s", hidden.body, missing.body)
	}
	w.get("/ai/answers/no-key", "Authorization", token(t, "user_1")).wants(t, 404, nil)
	w.get(mine).wants(t, 401, nil)
	w.do(http.MethodPost, "/ai/answers", titlePrompt).wants(t, 401, nil)
	// The app, on the user's behalf, and for nobody.
	app := []string{"Authorization", "Bearer " + eventsToken}
	w.get(mine, append(app, "X-User-Id", "user_1")...).wants(t, 200, nil)
	w.get(mine, append(app, "X-User-Id", "user_2")...).wants(t, 404, nil)
	w.do(http.MethodPost, "/ai/answers", titlePrompt, app...).wants(t, 400, nil)
}

func TestAnAnswerThatTakesItsTime(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = 20 * time.Millisecond })
	key := keyOf(t, titlePrompt, "user_1")
	path := "/ai/answers/" + key
	w.get(path, "Authorization", token(t, "user_1")).wants(t, 404, nil)
	for _, prefer := range []string{"", "respond-async", "wait=0", "respond-async;x=y, wait=0, unknown"} {
		a := w.ask(titlePrompt, "user_1", "Prefer", prefer)
		a.wants(t, 202, map[string]string{"Location": path, "Retry-After": "1", "Cache-Control": "no-store", "Content-Location": "", "X-Cache": "MISS"})
		if want := `{"key":"` + key + `","status":"pending"}`; string(a.body) != want {
			t.Errorf("the body is %s", a.body)
		}
	}
	if n := len(w.events.all()); n == 0 {
		t.Error("nobody was asked")
	}
	w.get(path, "Authorization", token(t, "user_1")).wants(t, 202, map[string]string{"Location": path, "Retry-After": "1"})
	w.get(path, "Authorization", token(t, "user_2")).wants(t, 404, nil)

	// Whoever looks with patience hears of it.
	var waiting sync.WaitGroup
	waiting.Go(func() {
		r, err := http.NewRequest(http.MethodGet, w.url+path, http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		r.Header.Set("Authorization", token(t, "user_1"))
		r.Header.Set("Prefer", "wait=20")
		if a, err := send(r); err != nil || a.StatusCode != http.StatusOK || !strings.Contains(string(a.body), "at last") {
			t.Errorf("the patient one is told %+v (%v)", a, err)
		}
	})
	testserver.Eventually(t, "somebody waits", func() error {
		if w.server.misses.waiters.Waiting() == 0 {
			return context.DeadlineExceeded
		}
		return nil
	})
	w.say(heard{Scope: "user_1", key: key}, "at last")
	waiting.Wait()
}

func TestAnAnswerThatTheModelRefuses(t *testing.T) {
	w := begin(t)
	var mu sync.Mutex
	final := false
	w.answerer(func(q heard) {
		mu.Lock()
		defer mu.Unlock()
		w.decline(q, cache.Failure{Reason: "the model answered with an error (status 400)", Final: final})
	})
	path := "/ai/answers/" + keyOf(t, titlePrompt, "user_1")
	// It may still come: the worker tries again.
	w.ask(titlePrompt, "user_1", "Prefer", "wait=10").wants(t, 202, nil)
	w.get(path, "Authorization", token(t, "user_1")).wants(t, 202, nil)
	mu.Lock()
	final = true
	mu.Unlock()
	for _, a := range []*answer{
		w.ask(titlePrompt, "user_1", "Prefer", "wait=10"),
		w.get(path, "Authorization", token(t, "user_1")),
		w.get(path, "Authorization", token(t, "user_1"), "Prefer", "wait=10"),
	} {
		a.wants(t, 502, map[string]string{"Cache-Control": "no-store", "X-Cache": "MISS"})
		if p := a.problem(t); p.Type != "/docs#model-refused" || p.Detail != "the model answered with an error (status 400)" {
			t.Errorf("the problem is %+v", p)
		}
	}
	w.get(path, "Authorization", token(t, "user_2")).wants(t, 404, nil)
}

// A model that is busy for a moment is asked again by a worker; for longer, by who asks.
func TestAnAnswerFromABusyModel(t *testing.T) {
	w := begin(t)
	after := make(chan time.Duration, 1)
	w.answerer(func(q heard) {
		if err := w.store.AnnounceFailure(context.Background(), "ai_answer", q.key, nil, cache.BusyReason(<-after, "the budget is spent")); err != nil {
			t.Error(err)
		}
	})
	after <- 2 * time.Second
	w.ask(titlePrompt, "user_1", "Prefer", "wait=10").wants(t, 202, nil)
	after <- 2 * time.Second // one that is asked for who waits alone is not asked again
	w.ask(titlePrompt, "user_1", "Prefer", "wait=10", "Cache-Control", "no-store").wants(t, 503, map[string]string{"Retry-After": "2"})
	after <- time.Minute
	w.ask(titlePrompt, "user_1", "Prefer", "wait=10").wants(t, 503, map[string]string{"Retry-After": "60", "X-Cache": "MISS", "Content-Location": ""})
}

func TestQuestionsThatAreRefused(t *testing.T) {
	w := begin(t)
	for name, c := range map[string]struct {
		body, says string
		status     int
	}{
		"nothing":      {``, "not a JSON object", 400},
		"no JSON":      {`{"prompt":"moon`, "not a JSON object", 400},
		"no object":    {`["moon"]`, "not a JSON object", 400},
		"no question":  {`{"model":"demo"}`, "neither prompt nor messages", 400},
		"both":         {`{"prompt":"moon","messages":[{}]}`, "exclude one another", 400},
		"many choices": {`{"prompt":"moon","n":2}`, "n is not 1", 400},
		"twice":        {`{"prompt":"moon","prompt":"sun"}`, "a name comes twice", 400},
		"deep":         {`{"prompt":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "nested 101 deep", 400},
		"long":         {`{"prompt":"` + strings.Repeat("x", maxQuestion) + `"}`, "longer than", 413},
	} {
		a := w.ask(c.body, "user_1")
		a.wants(t, c.status, nil)
		if p := a.problem(t); !strings.Contains(p.Detail, c.says) || strings.Contains(p.Detail, "moon") {
			t.Errorf("%s: the problem is %q", name, p.Detail)
		}
	}
	if n := len(w.events.all()); n != 0 {
		t.Errorf("%d events were appended", n)
	}
	w.ask(titlePrompt, "user_1", "Prefer", "wait=soon, respond-async").wants(t, 202, nil) // RFC 7240: ignored
	// The longest that is allowed travels.
	long := `{"prompt":"` + strings.Repeat("<", maxQuestion-20) + `"}`
	w.ask(long, "user_1", "Prefer", "respond-async").wants(t, 202, nil)
}

func TestQuestionsAreLimited(t *testing.T) {
	w := begin(t, func(o *Options) { o.Limits = "/ai/answers=2/1m" })
	for range 2 {
		w.ask(titlePrompt, "user_1", "Prefer", "respond-async").wants(t, 202, map[string]string{"RateLimit": `"/ai/answers".*`})
	}
	w.ask(titlePrompt, "user_1", "Prefer", "respond-async").wants(t, 429, nil)
	w.ask(titlePrompt, "user_2", "Prefer", "respond-async").wants(t, 202, nil)
	if n := len(w.events.all()); n != 2 { // one for each key
		t.Errorf("%d events were appended", n)
	}
}

// Requests that are none count as well, and who is over the limit is told so before
// anything is made of a request.
func TestBadQuestionsAreLimited(t *testing.T) {
	w := begin(t, func(o *Options) { o.Limits = "/ai/answers=3/1m,/v1/chat/completions=3/1m" })
	for _, path := range []string{"/ai/answers", "/v1/chat/completions"} {
		post := func(body, user string) *answer {
			return w.do(http.MethodPost, path, body, "Authorization", token(t, user), "Content-Type", "application/json", "Prefer", "respond-async")
		}
		for range 3 {
			post(`{"prompt":`, "user_1").wants(t, 400, map[string]string{"RateLimit": `"` + path + `".*`})
		}
		for range 2 { // by the limiter, then from memory
			post(`{"prompt":`, "user_1").wants(t, 429, map[string]string{"Retry-After": "[0-9]+", "RateLimit": `"` + path + `";r=0.*`})
		}
		post(`{"prompt":`, "user_2").wants(t, 400, nil)
	}
	if n := len(w.server.chat.limits.until); n != 2 {
		t.Errorf("%d are remembered", n)
	}
}

// Whoever comes back for an answer that nobody makes is told so, and when to ask again.
func TestAnswersThatWereDropped(t *testing.T) {
	w := begin(t)
	key := keyOf(t, titlePrompt, "user_1")
	look := func(user string) *answer {
		return w.get("/ai/answers/"+key, "Authorization", token(t, user))
	}
	w.ask(titlePrompt, "user_1", "Prefer", "respond-async").wants(t, 202, nil)
	if err := w.store.NewAnswers(w.view("ai_answer")).Drop(t.Context(), "user_1", key, time.Hour, "the budget is spent"); err != nil {
		t.Fatal(err)
	}
	a := look("user_1")
	a.wants(t, 503, map[string]string{"Retry-After": "3(600|59.)", "X-Cache": "MISS"})
	if p := a.problem(t); p.Detail != "the budget is spent" {
		t.Errorf("the problem is %+v", p)
	}
	look("user_2").wants(t, 404, nil)
	w.ask(titlePrompt, "user_1", "Prefer", "respond-async").wants(t, 202, nil)
	look("user_1").wants(t, 202, nil)
}

// A question with no-store is asked anew each time, and its answer is no other's. What
// stands under a key for somebody else, which cannot be, is nobody's either.
func TestAnswersAreForWhoAsked(t *testing.T) {
	w := begin(t)
	w.answerer(func(q heard) {
		if !q.NoStore || q.Nonce == "" {
			t.Errorf("the question is %+v", q)
		}
		w.say(q, "once")
	})
	keys := map[string]bool{}
	for range 2 {
		a := w.ask(titlePrompt, "user_1", "Cache-Control", "max-age=0, No-Store", "Prefer", "wait=10")
		a.wants(t, 200, map[string]string{"X-Cache": "MISS"})
		keys[a.Header.Get("Content-Location")] = true
	}
	if len(keys) != 2 {
		t.Errorf("it was asked once: %v", keys)
	}
	key := keyOf(t, titlePrompt, "user_1")
	f := fill(t, `{"key":"`+key+`","text":"another's"}`)
	f.Owner, f.Owned = "user_2", true
	w.put("ai_answer", key, f)
	w.ask(titlePrompt, "user_1").wants(t, 404, nil)
	w.chat(`{"messages":[{"role":"user","content":"a title <&>"}]}`, "Authorization", token(t, "user_1")).wants(t, 404, nil)
}

// Who waits for answers takes no place of those who wait for views.
func TestQuestionsWaitApart(t *testing.T) {
	w := begin(t, func(o *Options) { o.MaxWaiting, o.MissWait = 1, 20*time.Millisecond })
	told := make(chan *answer)
	go func() { told <- w.ask(titlePrompt, "user_1", "Prefer", "wait=2") }()
	testserver.Eventually(t, "one waits", func() error {
		if n := w.server.chat.waits.count(); n != 1 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	a := w.get("/books/my", "Authorization", token(t, "user_1"))
	a.wants(t, 503, nil)
	if p := a.problem(t); p.Type != "/docs#not-filled" {
		t.Errorf("the problem is %+v", p)
	}
	w.ask(`{"prompt":"another"}`, "user_1", "Prefer", "wait=2").wants(t, 202, nil) // there is no place
	(<-told).wants(t, 202, nil)
	if n := len(w.events.all()); n != 3 {
		t.Errorf("%d events were appended", n)
	}
}

// An answer about what stands behind an address is kept nowhere, however it is asked.
func TestQuestionsAboutAddressesAreNotKept(t *testing.T) {
	for content, fleeting := range map[string]bool{
		`[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]`:                       true,
		`[{"type":"text","text":"x"},{"type":"image_url","image_url":{"\u0075rl":"HTTPS://x/a.png"}}]`: true,
		`[{"type":"image_url","image_url":"https://example.com/a.png"}]`:                               true,
		`[{"type":"file","file":{"file_url":"https://example.com/a.pdf"}}]`:                            true,
		`[{"type":"input_file","file_url":"https://example.com/a.pdf"}]`:                               true,
		`[{"type":"image_url","image_url":{"url":"DATA:image/png;base64,AAAA"}}]`:                      false,
		`[{"type":"file","file":{"file_id":"file-1"}}]`:                                                false,
		`"see https://example.com/, and \"url\":\"https://x\""`:                                        false,
	} {
		q, err := cache.Models{}.Question([]byte(`{"model":"demo","messages":[{"role":"user","Content":"moon","content":` + content + `}]}`))
		if err != nil || isFleeting(q.Request) != fleeting {
			t.Errorf("%s: fleeting is %v (%v)", content, !fleeting, err)
		}
	}
	w := begin(t)
	seen := map[string]bool{}
	for range 2 {
		a := w.ask(`{"messages":[{"role":"user","Content":"moon","content":[{"type":"image_url","image_url":{"url":"https://x/a.png"}}]}]}`, "user_1", "Prefer", "respond-async")
		a.wants(t, 202, nil)
		seen[a.Header.Get("Location")] = true
	}
	for _, e := range w.events.all() {
		if !strings.Contains(string(e.Data), `"no_store":true`) {
			t.Errorf("the event is %s", e.Data)
		}
	}
	if len(seen) != 2 {
		t.Errorf("it is asked once in %v", seen)
	}
}

func TestQuestionsWithoutRedis(t *testing.T) {
	w := begin(t)
	w.redis.Stop()
	w.ask(titlePrompt, "user_1").wants(t, 503, map[string]string{"Retry-After": "1"})
	w.get("/ai/answers/"+strings.Repeat("0", 64), "Authorization", token(t, "user_1")).wants(t, 503, nil)
}

// Whoever hangs up while its question is sent, on which others wait, sends it nevertheless.
func TestQuestionsOutliveWhoAsked(t *testing.T) {
	ctx, hangUp := context.WithCancel(t.Context())
	var sent error
	m := newMisses(nil, nil, publishing{append: func(ctx context.Context) error {
		hangUp()
		sent = ctx.Err()
		return sent
	}}, time.Minute, 1)
	if err := m.ask(ctx, ask{view: &view.View{Name: "ai_answer"}, key: "k"}); err != nil || sent != nil {
		t.Errorf("it is told %v, and the question met %v", err, sent)
	}
}

// publishing is a Publisher whose Append is all that is called.
type publishing struct {
	Publisher

	append func(context.Context) error
}

func (p publishing) Append(ctx context.Context, _ ...event.Event) ([]string, error) {
	return []string{"1-0"}, p.append(ctx)
}
