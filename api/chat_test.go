package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

func TestChatIsToldAsItIsMade(t *testing.T) {
	w := begin(t)
	asked := make(chan heard, 10)
	w.answerer(func(q heard) { asked <- q })
	params := chatAbout("a title")
	params.StreamOptions.IncludeUsage = param.NewOpt(true)
	gone, hangUp := context.WithCancel(t.Context())
	var leaving sync.WaitGroup
	leaving.Go(func() { w.ann().NewStreaming(gone, chatAbout("a title")) })
	testserver.Eventually(t, "one follows", w.joined(1))
	hangUp() // who hangs up before anything is said leaves no trace
	leaving.Wait()
	testserver.Eventually(t, "nobody follows", w.joined(0))
	early := make(chan *listened)
	go func() { early <- listen(t, w.ann().NewStreaming(t.Context(), params)) }()
	made := w.begin(<-asked)
	made.say("Salt")
	one := (<-early).until("Salt")
	made.say(" and")
	one.until("Salt and")
	late := listen(t, w.ann().NewStreaming(t.Context(), chatAbout("a title"))).until("Salt and")
	var waiting sync.WaitGroup
	waiting.Go(func() { // who does not stream waits for the whole
		got, err := w.ann().New(t.Context(), chatAbout("a title"))
		if err != nil || got.Choices[0].Message.Content != "Salt and Light" || got.ID != "chatcmpl-1" || got.Usage.TotalTokens != 5 {
			t.Errorf("who waits is told %+v (%v)", got, err)
		}
	})
	late.Close()
	testserver.Eventually(t, "one follows", w.joined(1))
	testserver.Eventually(t, "one waits", w.waits(2))
	made.say(" Light")
	one.until("Salt and Light")
	made.end(cache.Answer{Text: "Salt and Light", Usage: cache.Usage{PromptTokens: 2, CompletionTokens: 3, TotalTokens: 5}})
	one.whole("Salt and Light")
	if one.usage.TotalTokens != 5 || one.ID != "chatcmpl-1" || one.Model != "demo-2" || one.Created != 7 {
		t.Errorf("the stream was %+v", one.ChatCompletion)
	}
	waiting.Wait()
	testserver.Eventually(t, "nobody follows", w.joined(0))
}

// answerLike is an answer with all that one can have.
func answerLike(key string) cache.Answer {
	text := strings.Repeat("Grüße <&> \"Ängström\"\n€ 📖 ", 40) + strings.Repeat("📖", 300)
	return cache.Answer{
		Key: key, ID: "chatcmpl-x", Model: "demo-2", Created: 7, Text: text, FinishReason: "tool_calls",
		ToolCalls: json.RawMessage(`[{"function":{"arguments":"{\"a\": \"` + strings.Repeat("é ", 200) + `\"}","name":"look"},` +
			`"id":"call_1","type":"function"},{"id":"call_2","type":"function","function":{"name":"go","arguments":"{}"}}]`),
		Usage:             cache.Usage{PromptTokens: 2, CompletionTokens: 3, TotalTokens: 5, PromptDetails: json.RawMessage(`{"cached_tokens":1}`)},
		SystemFingerprint: "fp_1", ServiceTier: "default",
	}
}

func TestChatHitIsTheSameInBothForms(t *testing.T) {
	w := begin(t)
	spared := 0
	w.server.o.Spared = func(_, model string, usage cache.Usage) {
		spared++
		if model != "demo" || usage.TotalTokens != 5 { // the model that was asked, whatever it calls itself
			t.Errorf("%s was spared %+v", model, usage)
		}
	}
	key := keyOf(t, `{"model":"demo","messages":[{"role":"user","content":"a title"}]}`, "ann")
	want := answerLike(key)
	body, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	w.put("ai_answer", key, cache.Fill{Owner: "ann", Owned: true, Body: body})
	var response *http.Response
	whole, err := w.ann().New(t.Context(), chatAbout("a title"), option.WithResponseInto(&response))
	if err != nil {
		t.Fatal(err)
	}
	params := chatAbout("a title")
	params.StreamOptions.IncludeUsage = param.NewOpt(true)
	stream := listen(t, w.ann().NewStreaming(t.Context(), params)).whole(want.Text)
	if stream.chunks < 10 {
		t.Errorf("the text came in %d chunks", stream.chunks)
	}
	for name, got := range map[string]openai.ChatCompletion{"whole": *whole, "stream": stream.ChatCompletion} {
		if got.Choices[0].Message.Content != want.Text || got.Choices[0].FinishReason != "tool_calls" {
			t.Errorf("%s: the text is %q", name, got.Choices[0].Message.Content)
		}
		if got.ID != want.ID || got.Model != want.Model || got.Created != want.Created {
			t.Errorf("%s: it is %s of %s at %d", name, got.ID, got.Model, got.Created)
		}
		if got.Usage.TotalTokens != 5 || got.Usage.PromptTokensDetails.CachedTokens != 1 {
			t.Errorf("%s: usage is %+v", name, got.Usage)
		}
		var calls []struct{ Function struct{ Arguments string } }
		if err := json.Unmarshal(want.ToolCalls, &calls); err != nil {
			t.Fatal(err)
		}
		told := got.Choices[0].Message.ToolCalls
		if len(told) != 2 || told[0].ID != "call_1" || told[0].Function.Name != "look" || told[0].Function.Arguments != calls[0].Function.Arguments ||
			told[1].ID != "call_2" || told[1].Function.Arguments != "{}" {
			t.Errorf("%s: the calls are %+v", name, told)
		}
	}
	if h := response.Header; h.Get("X-Cache") != "HIT" || !strings.HasPrefix(h.Get("Cache-Status"), "mythic-cache; hit; ttl=") || h.Get("Age") == "" {
		t.Errorf("the header is %v", h)
	}
	if spared != 2 || len(w.events.all()) != 0 {
		t.Errorf("%d were spared, and %d asked", spared, len(w.events.all()))
	}
	ask := `{"model":"demo","messages":[{"role":"user","content":"a title"}],"stream":true}`
	a := w.chat(ask, "Authorization", token(t, "ann"))
	a.wants(t, 200, map[string]string{"Content-Type": "text/event-stream.*", "X-Cache": "HIT", "Cache-Control": "no-store", "Age": "[0-9]+"})
	if !strings.HasSuffix(string(a.body), "data: [DONE]\n\n") || strings.Contains(string(a.body), `"usage"`) || !strings.Contains(string(a.body), `"system_fingerprint":"fp_1"`) {
		t.Errorf("the stream is %s", a.body)
	}
	w.chat(strings.Replace(ask, "true", "false", 1), "Authorization", token(t, "ann")).wants(t, 200, map[string]string{"X-Cache": "HIT"})
}

// A worker dies in the midst of an answer. Its successor's model begins anew.
func TestChatGoesOnAfterADeath(t *testing.T) {
	for name, c := range map[string]struct {
		second []string
		whole  string // empty: an error
	}{
		"it says the same":             {[]string{"Salt", " and Light"}, "Salt and Light"},
		"it comes to less than before": {[]string{"Sal"}, ""},
		"it says something else":       {[]string{"Sa", "nd"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := begin(t)
			asked := make(chan heard, 10)
			w.answerer(func(q heard) { asked <- q })
			streams := make(chan *listened)
			go func() { streams <- listen(t, w.ann().NewStreaming(t.Context(), chatAbout("a title"))) }()
			q := <-asked
			first := w.begin(q)
			first.say("Salt an")
			stream := (<-streams).until("Salt an")
			first.die()
			second := w.begin(q)
			for _, text := range c.second {
				second.say(text)
			}
			second.end(cache.Answer{Text: strings.Join(c.second, "")})
			if c.whole != "" {
				stream.whole(c.whole)
				return
			}
			stream.until("")
			if err := stream.Err(); err == nil || !strings.Contains(err.Error(), "answer_interrupted") || stream.text() != "Salt an" {
				t.Errorf("the stream ended with %v, after %q", err, stream.text())
			}
		})
	}
}

// What was told of an answer that nobody may have any more is not told again.
func TestChatBeginsAnew(t *testing.T) {
	w := begin(t)
	var mu sync.Mutex
	n := 0
	w.answerer(func(q heard) {
		mu.Lock()
		defer mu.Unlock()
		n++
		made := w.begin(q)
		text := []string{"", "one", "two"}[n]
		made.say(text)
		made.end(cache.Answer{Text: text})
	})
	listen(t, w.ann().NewStreaming(t.Context(), chatAbout("a title"))).whole("one")
	for _, key := range w.client.Keys(t.Context(), "mythic:ai_answer:*").Val() {
		w.client.Del(t.Context(), key)
	}
	listen(t, w.ann().NewStreaming(t.Context(), chatAbout("a title"))).whole("two")
}

// Without flows, a stream still tells the whole.
func TestChatWithoutFlows(t *testing.T) {
	w := begin(t)
	w.answerer(func(q heard) { w.say(q, "Salt") })
	listen(t, w.ann().NewStreaming(t.Context(), chatAbout("a title"))).whole("Salt")
}

func TestChatScopes(t *testing.T) {
	w := begin(t, func(o *Options) { o.Models = models(t, "demo", "demo,open", "open") })
	w.answerer(func(q heard) { w.say(q, strings.ReplaceAll(q.Scope, "\x00", "0")) })
	app := w.openAIClient(eventsToken)
	tell := func(c *openai.ChatCompletionService, want string, change func(*openai.ChatCompletionNewParams), more ...option.RequestOption) {
		t.Helper()
		params := chatAbout("a title")
		if change != nil {
			change(&params)
		}
		got, err := c.New(t.Context(), params, more...)
		if err != nil || got.Choices[0].Message.Content != want {
			t.Errorf("it was for %+v (%v), not %s", got, err, want)
		}
	}
	user := func(name string) func(*openai.ChatCompletionNewParams) {
		return func(p *openai.ChatCompletionNewParams) { p.User = param.NewOpt(name) }
	}
	tell(w.ann(), "ann", nil)
	tell(w.ann(), "ann", user("bob"))
	tell(app, "bob", user("bob"))
	tell(app, "carl", nil, option.WithHeader("X-User-Id", "carl"))
	tell(app, "dora", user("dora"), option.WithHeader("X-User-Id", "dora"))
	tell(app, "0app", nil)
	shared := func(p *openai.ChatCompletionNewParams) { p.Model = "open" }
	tell(w.ann(), "0shared", shared)
	before := len(w.events.all())
	tell(app, "0shared", shared)
	if n := len(w.events.all()); n != before {
		t.Error("what is shared was asked again")
	}
	body := `{"messages":[{"role":"user","content":"x"}],"user":"bob"}`
	a := w.chat(body, "Authorization", "Bearer "+eventsToken, "X-User-Id", "carl")
	a.wants(t, 400, nil)
	if _, wrong, _, _ := a.openAI(t); wrong != "user" {
		t.Errorf("it is %s that is wrong", wrong)
	}
	// The other form shares the same answers.
	shown := w.ask(`{"prompt":"a title","model":"open"}`, "bob")
	shown.wants(t, 200, map[string]string{"X-Cache": "HIT"})
	w.get(shown.Header.Get("Content-Location"), "Authorization", token(t, "carl")).wants(t, 200, nil)
}

// Who asks with no-store is answered by the model, alone, and so is who asks about what
// stands behind an address.
func TestChatIsNotKept(t *testing.T) {
	w := begin(t)
	var mu sync.Mutex
	keys := map[string]bool{}
	w.answerer(func(q heard) {
		mu.Lock()
		defer mu.Unlock()
		if !q.NoStore || q.Scope != "ann" || keys[q.key] {
			t.Errorf("the question is %+v", q)
		}
		keys[q.key] = true
		w.say(q, "Salt")
	})
	for range 2 {
		if _, err := w.ann().New(t.Context(), chatAbout("a title"), option.WithHeader("Cache-Control", "no-store")); err != nil {
			t.Error(err)
		}
		picture := openai.ChatCompletionNewParams{Model: "demo", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
			openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: "https://example.com/a.png"}),
		})}}
		if _, err := w.ann().New(t.Context(), picture); err != nil {
			t.Error(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(keys) != 4 {
		t.Errorf("%d questions were asked", len(keys))
	}
}

func TestChatThatIsRefused(t *testing.T) {
	w := begin(t, func(o *Options) {
		o.Models = models(t, "demo", "demo", "")
		o.Limits = "/v1/chat/completions=50/1m"
	})
	const message = `"messages":[{"role":"user","content":"moon"}]`
	for name, c := range map[string]struct {
		body, kind, param, code string
		status                  int
	}{
		"nothing":            {``, "invalid_request_error", "", "", 400},
		"no JSON":            {`{` + message, "invalid_request_error", "", "", 400},
		"no object":          {`["moon"]`, "invalid_request_error", "", "", 400},
		"a name twice":       {`{` + message + `,` + message + `}`, "invalid_request_error", "", "", 400},
		"no messages":        {`{"model":"demo"}`, "invalid_request_error", "messages", "", 400},
		"an empty list":      {`{"messages":[]}`, "invalid_request_error", "messages", "", 400},
		"a text":             {`{"messages":"moon"}`, "invalid_request_error", "messages", "", 400},
		"no role":            {`{"messages":[{"role":"user","content":"x"},{"content":"moon"}]}`, "invalid_request_error", "messages[1].role", "", 400},
		"null":               {`{"messages":[null]}`, "invalid_request_error", "messages[0].role", "", 400},
		"parts":              {`{"messages":[{"role":"user","content":["moon"]}]}`, "invalid_request_error", "messages[0].content", "", 400},
		"many choices":       {`{` + message + `,"n":2}`, "invalid_request_error", "n", "", 400},
		"a prompt":           {`{"prompt":"moon"}`, "invalid_request_error", "prompt", "", 400},
		"a model of no kind": {`{` + message + `,"model":7}`, "invalid_request_error", "model", "", 400},
		"unknown model":      {`{` + message + `,"model":"other"}`, "invalid_request_error", "model", "model_not_found", 404},
		"stream":             {`{` + message + `,"stream":"yes"}`, "invalid_request_error", "stream", "", 400},
		"options":            {`{` + message + `,"stream_options":{"include_usage":true}}`, "invalid_request_error", "stream_options", "", 400},
		"odd options":        {`{` + message + `,"stream":true,"stream_options":{"include_usage":1}}`, "invalid_request_error", "stream_options", "", 400},
		"user":               {`{` + message + `,"user":7}`, "invalid_request_error", "user", "", 400},
		"speech":             {`{` + message + `,"modalities":["text","audio"]}`, "invalid_request_error", "modalities", "", 400},
		"a voice":            {`{` + message + `,"audio":{"voice":"moon"}}`, "invalid_request_error", "audio", "", 400},
		"deep":               {`{"messages":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "invalid_request_error", "", "", 400},
		"long":               {`{"messages":[{"role":"user","content":"` + strings.Repeat("x", maxQuestion) + `"}]}`, "invalid_request_error", "", "request_too_large", 413},
	} {
		a := w.chat(c.body, "Authorization", token(t, "ann"))
		a.wants(t, c.status, map[string]string{"Cache-Control": "no-store"})
		kind, wrong, code, text := a.openAI(t)
		if kind != c.kind || wrong != c.param || code != c.code || strings.Contains(text, "moon") {
			t.Errorf("%s: the error is %s", name, a.body)
		}
	}
	if n := len(w.events.all()); n != 0 {
		t.Errorf("%d events were appended", n)
	}
	for _, headers := range [][]string{nil, {"Authorization", "Bearer nonsense"}} {
		a := w.chat(`{`+message+`}`, headers...)
		a.wants(t, 401, map[string]string{"WWW-Authenticate": "Bearer .*"})
		if _, _, code, _ := a.openAI(t); code != "invalid_api_key" {
			t.Errorf("the error is %s", a.body)
		}
	}
}

// What OpenAI's API has and this one has not is refused in its form, and the rest in ours.
func TestChatHasNoOtherPaths(t *testing.T) {
	w := begin(t)
	for _, c := range []struct {
		method, path string
		status       int
	}{{"GET", "/v1/chat/completions", 405}, {"POST", "/v1/embeddings", 404}, {"GET", "/v1/models/a/b", 404}} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, w.url+c.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		a, err := send(r)
		if err != nil {
			t.Fatal(err)
		}
		if kind, _, _, message := a.openAI(t); a.StatusCode != c.status || kind != "invalid_request_error" || message == "" {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.StatusCode, a.body)
		}
	}
	if kind := w.get("/v2/models").Header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("elsewhere the form is %s", kind)
	}
}

func TestChatIsLimited(t *testing.T) {
	w := begin(t, func(o *Options) { o.Limits = "/v1/chat/completions=1/1m" })
	w.answerer(func(q heard) { w.say(q, "Salt") })
	if _, err := w.ann().New(t.Context(), chatAbout("a title")); err != nil {
		t.Fatal(err)
	}
	_, err := w.ann().New(t.Context(), chatAbout("a title"))
	var told *openai.Error
	if !errors.As(err, &told) || told.StatusCode != http.StatusTooManyRequests || told.Code != "rate_limit_exceeded" || told.Response.Header.Get("Retry-After") == "" {
		t.Errorf("the error is %v", err)
	}
	// What the app asks for a user counts as the user's.
	_, err = w.openAIClient(eventsToken).New(t.Context(), chatAbout("a title"), option.WithJSONSet("user", "ann"))
	if !errors.As(err, &told) || told.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the app is told %v", err)
	}
}

func TestChatThatTheModelRefuses(t *testing.T) {
	for reason, want := range map[string]struct {
		status     int
		kind, code string
	}{
		cache.AnswerRefused + "the model answered with an error (status 400) (context_length_exceeded)":            {400, "invalid_request_error", "context_length_exceeded"},
		cache.AnswerRefused + "the model answered with an error (status 404) (model_not_found)":                    {404, "invalid_request_error", "model_not_found"},
		cache.AnswerRefused + "the model answered with an error (status 422) (param tools[1]) (unsupported_value)": {422, "invalid_request_error", "unsupported_value"},
		cache.AnswerRefused + "the model answered with an error (status 401)":                                      {502, "server_error", "model_refused"},
		cache.AnswerRefused + "the model answered with an error (status 429) (insufficient_quota)":                 {429, "insufficient_quota", "insufficient_quota"},
		cache.BusyReason(7*time.Second, "the budget is spent"):                                                     {503, "server_error", "model_busy"},
	} {
		t.Run(strconv.Itoa(want.status), func(t *testing.T) {
			w := begin(t)
			w.answerer(func(q heard) {
				lease, err := w.store.Lease(context.Background(), w.view("ai_answer"), q.key, time.Minute)
				if err == nil {
					err = w.store.Abandon(context.Background(), lease, reason)
				}
				if err != nil {
					t.Error(err)
				}
			})
			for _, stream := range []string{"true", "false"} {
				a := w.chat(`{"messages":[{"role":"user","content":"moon"}],"stream":`+stream+`}`, "Authorization", token(t, "ann"))
				a.wants(t, want.status, map[string]string{"X-Cache": "MISS"})
				kind, wrong, code, _ := a.openAI(t)
				if member := map[string]string{"context_length_exceeded": "messages", "model_not_found": "model", "unsupported_value": "tools[1]"}[code]; kind != want.kind || code != want.code || wrong != member {
					t.Errorf("of %q it is told %s", reason, a.body)
				}
				if told := a.Header.Get("X-Should-Retry"); (told == "false") != (want.code == "insufficient_quota") {
					t.Errorf("of %q it is told whether to ask again: %q", reason, told)
				}
				if want.status == 503 && a.Header.Get("Retry-After") != "7" {
					t.Errorf("it is to be asked again after %s", a.Header.Get("Retry-After"))
				}
			}
		})
	}
}

// Nobody answers: a request waits for so long, a stream with signs of life.
func TestChatThatNobodyAnswers(t *testing.T) {
	w := begin(t)
	w.server.chat.times.wait, w.server.chat.times.beat = 200*time.Millisecond, 50*time.Millisecond
	a := w.chat(`{"messages":[{"role":"user","content":"moon"}]}`, "Authorization", token(t, "ann"))
	a.wants(t, 503, map[string]string{"X-Cache": "MISS", "Retry-After": "1"})
	a = w.chat(`{"messages":[{"role":"user","content":"moon"}],"stream":true}`, "Authorization", token(t, "ann"))
	a.wants(t, 200, map[string]string{"X-Cache": "MISS", "Cache-Status": "mythic-cache; fwd=uri-miss", "Age": ""})
	if text := string(a.body); !strings.HasPrefix(text, ":\n:\n") || !strings.HasSuffix(text, "\"code\":\"not_filled\"}}\n\n") {
		t.Errorf("the stream is %q", text)
	}
}

// Who waits when the server stops is let go in time.
func TestChatWhenTheServerStops(t *testing.T) {
	w := begin(t)
	asked := make(chan heard, 10)
	w.answerer(func(q heard) { asked <- q })
	w.server.chat.times.leave = 50 * time.Millisecond
	streams := make(chan *listened)
	go func() { streams <- listen(t, w.ann().NewStreaming(t.Context(), chatAbout("a title"))) }()
	made := w.begin(<-asked)
	made.say("Salt")
	stream := (<-streams).until("Salt")
	var waiting sync.WaitGroup
	waiting.Go(func() {
		_, err := w.ann().New(t.Context(), chatAbout("a title"))
		var told *openai.Error
		if !errors.As(err, &told) || told.StatusCode != http.StatusServiceUnavailable || told.Response.Header.Get("Retry-After") == "" {
			t.Errorf("who waits is told %v", err)
		}
	})
	testserver.Eventually(t, "two wait", w.waits(2))
	w.server.watches.stop()
	waiting.Wait()
	stream.until("")
	if err := stream.Err(); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("the stream ended with %v", err)
	}
}

// A model that fails is tried again by a worker, and its askers wait for that.
func TestChatThatFailsAtFirst(t *testing.T) {
	w := begin(t)
	again := make(chan heard, 10)
	w.answerer(func(q heard) {
		w.decline(q, cache.Failure{Reason: "the model answered with an error (status 500)"})
		again <- q
	})
	streams := make(chan *listened)
	go func() { streams <- listen(t, w.ann().NewStreaming(t.Context(), chatAbout("a title"))) }()
	q := <-again
	made := w.begin(q)
	made.say("Salt")
	made.end(cache.Answer{Text: "Salt"})
	(<-streams).whole("Salt")
}

// Once a worker has begun again, it may take as long as a first attempt.
func TestChatWaitsForASecondAttempt(t *testing.T) {
	w := begin(t)
	w.server.chat.times.grace = time.Second
	attempts := make(chan *attempt, 1)
	var once sync.Once
	w.answerer(func(q heard) {
		once.Do(func() {
			w.decline(q, cache.Failure{Reason: "the model answered with an error (status 500)"})
			attempts <- w.begin(q)
		})
	})
	told := make(chan string, 2)
	go func() {
		got, err := w.ann().New(t.Context(), chatAbout("a title"))
		if err != nil {
			t.Error(err)
			told <- ""
			return
		}
		told <- got.Choices[0].Message.Content
	}()
	made := <-attempts
	made.say("Salt")
	stream := listen(t, w.ann().NewStreaming(t.Context(), chatAbout("a title"))).until("Salt")
	<-time.After(w.server.chat.times.grace + 200*time.Millisecond)
	made.say(" and Light")
	made.end(cache.Answer{Text: "Salt and Light"})
	stream.whole("Salt and Light")
	if got := <-told; got != "Salt and Light" {
		t.Errorf("who waited is told %q", got)
	}
}

func TestChatModels(t *testing.T) {
	w := begin(t, func(o *Options) { o.Models = models(t, "writer", "writer=demo,meta/small", "") })
	service := openai.NewModelService(option.WithBaseURL(w.url+"/v1/"), option.WithAPIKey(eventsToken), option.WithMaxRetries(0))
	page, err := service.List(t.Context())
	if err != nil || len(page.Data) != 2 || page.Data[0].ID != "writer" || page.Data[1].ID != "meta/small" {
		t.Errorf("the models are %+v (%v)", page, err)
	}
	if got, err := service.Get(t.Context(), "meta/small"); err != nil || got.ID != "meta/small" {
		t.Errorf("the model is %+v (%v)", got, err)
	}
	_, err = service.Get(t.Context(), "demo")
	var told *openai.Error
	if !errors.As(err, &told) || told.StatusCode != http.StatusNotFound || told.Code != "model_not_found" || told.Param != "model" {
		t.Errorf("the error is %v", err)
	}
	w.get("/v1/models").wants(t, 401, nil)
	w.get("/v1/models", "Authorization", token(t, "ann")).wants(t, 200, nil)
	w.get("/v1/models/writer", "Authorization", token(t, "ann")).wants(t, 200, nil)
	w.get("/v1/models/moon", "Authorization", token(t, "ann")).wants(t, 404, nil)
	// A name stands for its model, in the key and in what the worker is told.
	w.answerer(func(q heard) {
		if !strings.Contains(string(q.Request), `"model":"demo"`) {
			t.Errorf("the request is %s", q.Request)
		}
		w.say(q, "Salt")
	})
	params := chatAbout("a title")
	params.Model = "writer"
	if _, err := w.ann().New(t.Context(), params); err != nil {
		t.Error(err)
	}
}
