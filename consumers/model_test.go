package consumers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/modelserver"
)

const chatRequest = `{"messages":[{"content":"tell me a secret","role":"user"}],"model":"test-model","seed":9007199254740993}`

func newModel(t *testing.T, server *modelserver.Server) Model {
	t.Helper()
	model, err := NewOpenAI(server.URL(), "sk-test", &http.Client{Transport: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	return model
}

// untold is for who wants the whole alone.
func untold(cache.FlowPart) {}

func TestOpenAIAnswers(t *testing.T) {
	server := modelserver.New(t)
	var told cache.Draft
	pieces := 0
	answer, err := newModel(t, server).Answer(t.Context(), json.RawMessage(chatRequest), func(p cache.FlowPart) {
		pieces++
		if err := told.Add(p); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	want := cache.Answer{
		ID: "chatcmpl-1", SystemFingerprint: "fp_test",
		Model: "test-model", Text: "You asked: tell me a secret", FinishReason: "stop", Created: 1750000000,
		Usage: cache.Usage{PromptTokens: 4, CompletionTokens: 6, TotalTokens: 10},
	}
	if got, _ := answer.Encode(); !bytes.Equal(got, must(want.Encode())) {
		t.Errorf("the answer is %s", got)
	}
	if whole, err := told.Answer(); err != nil || pieces != 9 || !bytes.Equal(must(whole.Encode()), must(want.Encode())) {
		t.Errorf("told in %d pieces it is %+v (%v)", pieces, whole, err)
	}
	call := server.Calls()[0]
	if string(call.Body) != `{"stream":true,"stream_options":{"include_usage":true},`+chatRequest[1:] {
		t.Errorf("the model was sent %s", call.Body)
	}
	if got := call.Header.Get("Authorization"); got != "Bearer sk-test" {
		t.Errorf("the model was sent the key as %q", got)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestOpenAIKeepsToolCalls(t *testing.T) {
	server := modelserver.New(t)
	const calls = `[{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\"town\":\"Kiel\"}"}}]`
	server.Respond(func(modelserver.Call) modelserver.Reply {
		return modelserver.Reply{ToolCalls: json.RawMessage(calls), FinishReason: "tool_calls"}
	})
	answer, err := newModel(t, server).Answer(t.Context(), json.RawMessage(chatRequest), untold)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := errors.Join(json.Unmarshal(answer.ToolCalls, &got), json.Unmarshal([]byte(calls), &want)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(must(json.Marshal(got)), must(json.Marshal(want))) || answer.FinishReason != "tool_calls" {
		t.Errorf("the tool calls are %s, finished by %q", answer.ToolCalls, answer.FinishReason)
	}
}

func TestOpenAIRefuses(t *testing.T) {
	echo := "tell me a secret" // what providers like to quote
	for _, c := range []struct {
		name            string
		reply           modelserver.Reply
		says            string
		permanent, busy bool
		after           time.Duration
	}{
		{name: "a bad request", reply: modelserver.Reply{Status: 400, Code: "context_length_exceeded", Message: echo}, says: "answered with an error (status 400) (context_length_exceeded)", permanent: true},
		{name: "a member", reply: modelserver.Reply{Status: 400, Code: "unsupported_value", Param: "temperature"}, says: "(status 400) (param temperature) (unsupported_value)", permanent: true},
		{name: "deep in a member", reply: modelserver.Reply{Status: 400, Param: "tools[12].function.secret"}, says: "(status 400) (param tools[12])", permanent: true},
		{name: "a member that is prose", reply: modelserver.Reply{Status: 400, Param: echo, Code: "no"}, says: "(status 400) (no)", permanent: true},
		{name: "a code that is prose", reply: modelserver.Reply{Status: 422, Code: echo, Message: echo}, says: "(status 422)", permanent: true},
		{name: "a bad key", reply: modelserver.Reply{Status: 401, Code: "invalid_api_key", Message: echo}, says: "(status 401) (invalid_api_key)", permanent: true},
		{name: "too many", reply: modelserver.Reply{Status: 429, Code: "rate_limit_exceeded", RetryAfter: 7 * time.Second}, says: "(status 429)", busy: true, after: 7 * time.Second},
		{name: "no money", reply: modelserver.Reply{Status: 429, Code: "insufficient_quota"}, says: "insufficient_quota"},
		{name: "a timeout", reply: modelserver.Reply{Status: 408}, says: "(status 408)"},
		{name: "a failure", reply: modelserver.Reply{Status: 503, RetryAfter: 2 * time.Second, Message: echo}, says: "(status 503)", after: 2 * time.Second},
		{name: "a broken line", reply: modelserver.Reply{Cut: true}, says: "cannot be read"},
		{name: "no JSON", reply: modelserver.Reply{Malformed: echo}, says: "cannot be read"},
		{name: "no choice", reply: modelserver.Reply{Malformed: `{"choices":[]}`}, says: "not finished"},
		{name: "an error midway", reply: modelserver.Reply{Malformed: `{"error":{"message":"tell me a secret","code":"server_error"}}`}, says: "broke off with an error (server_error)"},
		{name: "no end", reply: modelserver.Reply{Malformed: `{"id":"x","choices":[{"index":0,"delta":{"content":"half"}}]}`}, says: "not finished"},
		{name: "no end to it", reply: modelserver.Reply{Text: strings.Repeat("x", maxCompletion)}, says: "too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := modelserver.New(t)
			server.Respond(func(modelserver.Call) modelserver.Reply { return c.reply })
			_, err := newModel(t, server).Answer(t.Context(), json.RawMessage(chatRequest), untold)
			var refused *ModelError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("the error is %v", err)
			}
			if refused.Permanent() != c.permanent || refused.Busy() != c.busy || refused.RetryAfter != c.after {
				t.Errorf("permanent %v, busy %v, retry after %v", refused.Permanent(), refused.Busy(), refused.RetryAfter)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes the prompt: %v", err)
			}
			if n := len(server.Calls()); n != 1 {
				t.Errorf("the model was called %d times", n)
			}
		})
	}
}

// What the model declines is an answer, which nobody keeps.
func TestOpenAIDeclines(t *testing.T) {
	for _, c := range []struct {
		reply   modelserver.Reply
		lasting bool
	}{
		{modelserver.Reply{Refusal: "no"}, false},
		{modelserver.Reply{FinishReason: "content_filter"}, false},
		{modelserver.Reply{FinishReason: "length"}, false},
		{modelserver.Reply{FinishReason: "tool_calls"}, true},
	} {
		server := modelserver.New(t)
		server.Respond(func(modelserver.Call) modelserver.Reply { return c.reply })
		answer, err := newModel(t, server).Answer(t.Context(), json.RawMessage(chatRequest), untold)
		if err != nil || answer.Refusal != c.reply.Refusal || answer.Lasting() != c.lasting {
			t.Errorf("of %+v it makes %+v (%v)", c.reply, answer, err)
		}
	}
}

func TestOpenAIUnreachable(t *testing.T) {
	server := modelserver.Start()
	model := newModel(t, server)
	server.Close()
	_, err := model.Answer(t.Context(), json.RawMessage(chatRequest), untold)
	var refused *ModelError
	if !errors.As(err, &refused) || refused.Permanent() || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("the error is %v", err)
	}
}

func TestOpenAIHangsUp(t *testing.T) {
	server := modelserver.New(t)
	server.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Hold: make(chan struct{})} })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-server.Arrived()
		cancel()
	}()
	if _, err := newModel(t, server).Answer(ctx, json.RawMessage(chatRequest), untold); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

func TestNewOpenAIRefuses(t *testing.T) {
	for _, base := range []string{"", "api.openai.com/v1", "ftp://model/v1", "http://user:moon@%zz/"} {
		if _, err := NewOpenAI(base, "", nil); err == nil || strings.Contains(err.Error(), "moon") {
			t.Errorf("of %q it says %v", base, err)
		}
	}
	model, err := NewOpenAI("https://user:pass@models.example/v1/", "", nil)
	if err != nil || model.Name() != "models.example/v1" {
		t.Errorf("the model is named %v (%v)", model, err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name, value string
		want        time.Duration
	}{
		{"Retry-After", "3", 3 * time.Second},
		{"Retry-After", "0.5", 500 * time.Millisecond},
		{"Retry-After-Ms", "250", 250 * time.Millisecond},
		{"Retry-After", now.Add(time.Minute).Format(http.TimeFormat), time.Minute},
		{"Retry-After", now.Add(-time.Minute).Format(http.TimeFormat), 0},
		{"Retry-After", "-4", 0},
		{"Retry-After", "NaN", 0},
		{"Retry-After", "Inf", 24 * time.Hour},
		{"Retry-After", "soon", 0},
	} {
		if got := retryAfter(http.Header{c.name: {c.value}}, now); got != c.want {
			t.Errorf("%s: %s is %v, not %v", c.name, c.value, got, c.want)
		}
	}
}

func TestDemoModel(t *testing.T) {
	model := NewDemoModel()
	a, errA := model.Answer(t.Context(), json.RawMessage(chatRequest), untold)
	b, errB := model.Answer(t.Context(), json.RawMessage(chatRequest), untold)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(must(a.Encode()), must(b.Encode())) {
		t.Errorf("one request has the answers %+v and %+v", a, b)
	}
	if !strings.Contains(a.Text, "demo model, not a language model") || a.Model != DemoModelName || a.Usage.TotalTokens == 0 {
		t.Errorf("the answer is %+v", a)
	}
	if _, err := model.Answer(t.Context(), json.RawMessage(`{}`), untold); err == nil {
		t.Error("a request without messages is answered")
	}
}
