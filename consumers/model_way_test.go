package consumers

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"mythiccache/cache"
	"mythiccache/internal/modelserver"
)

// What is paid for is read, in whatever form a provider sends it.
func TestOpenAIOtherHabits(t *testing.T) {
	t.Parallel()
	const calls = `[{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{}"}},{"id":"call_2","type":"function","function":{"name":"tide","arguments":"{}"}}]`
	piece := func(choice, rest string) modelserver.Reply {
		return modelserver.Reply{Malformed: `{"id":"x","model":"m","choices":[{"index":0,` + choice + `}]` + rest + `}`}
	}
	for name, c := range map[string]struct {
		reply           modelserver.Reply
		text, reasoning string
		calls           string
		usage           int64
	}{
		"whole":            {reply: modelserver.Reply{Whole: true, Text: "Salt <and>\nLight"}, text: "Salt <and>\nLight", usage: 7},
		"whole, of calls":  {reply: modelserver.Reply{Whole: true, ToolCalls: json.RawMessage(calls), FinishReason: "tool_calls"}, calls: calls, usage: 4},
		"usage of floats":  {reply: piece(`"delta":{"content":"a"},"finish_reason":"stop"`, `,"usage":{"prompt_tokens":1.0,"total_tokens":1.5}`), text: "a"},
		"usage of another": {reply: piece(`"delta":{"content":"a"},"finish_reason":"stop"`, `,"usage":"much"`), text: "a"},
		"content in parts": {
			reply: piece(`"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"a"},{"type":"text","text":" b"}]},"finish_reason":"stop"`, ""),
			text:  "a b", reasoning: `{"reasoning_content":"hm"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := modelserver.New(t)
			server.Respond(func(modelserver.Call) modelserver.Reply { return c.reply })
			var told cache.Draft
			answer, err := newModel(t, server).Answer(t.Context(), json.RawMessage(chatRequest), func(p cache.FlowPart) {
				if err := told.Add(p); err != nil {
					t.Error(err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if answer.Text != c.text || string(answer.Other) != c.reasoning || answer.Usage.TotalTokens != c.usage || !answer.Lasting() {
				t.Errorf("the answer is %s", must(answer.Encode()))
			}
			if c.calls != "" && !sameJSON(answer.ToolCalls, []byte(c.calls)) {
				t.Errorf("the calls are %s", answer.ToolCalls)
			}
			if whole, err := told.Answer(); err != nil || whole.Text != c.text {
				t.Errorf("told it is %+v (%v)", whole, err)
			}
		})
	}
}

// What of a response is neither is an error, as it is in pieces.
func TestOpenAIWholeErrors(t *testing.T) {
	t.Parallel()
	for body, says := range map[string]string{
		`{"error":{"message":"tell me a secret","code":"server_error"}}`: "broke off with an error (server_error)",
		`no JSON`:            "cannot be read",
		`{"choices":[null]}`: "not finished",
		`{"choices":[{"index":0,"message":{"tool_calls":[null]}}]}`:                                 "not finished",
		`{"choices":[{"index":0,"message":{"content":[{"type":"image"}]},"finish_reason":"stop"}]}`: "cannot be read",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(server.Close)
		model, err := NewOpenAI(server.URL, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := model.Answer(t.Context(), json.RawMessage(chatRequest), untold)
		if err == nil && answer.Lasting() || err != nil && (!strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("of %s it makes %+v (%v)", body, answer, err)
		}
	}
}

// Who asks is told of which kind an error of the way is, and not which way that is.
func TestOpenAITellsNoWay(t *testing.T) {
	t.Parallel()
	closed := modelserver.Start()
	closed.Close()
	plain := modelserver.New(t)
	proxied := &http.Client{Transport: &http.Transport{Proxy: func(*http.Request) (*url.URL, error) {
		return nil, errors.New(`invalid proxy address "http://user:hunter2@proxy.inner:%zz"`)
	}}}
	for name, c := range map[string]struct {
		base   string
		client *http.Client
		says   string
		inner  string
		detail string
	}{
		"refused":  {base: closed.URL(), says: "the model cannot be reached: connection refused", inner: "127.0.0.1", detail: "127.0.0.1"},
		"no host":  {base: "http://user:hunter2@model.inner.invalid/v1", says: "the model cannot be reached: its host is not found", inner: "inner", detail: "model.inner.invalid"},
		"no TLS":   {base: strings.Replace(plain.URL(), "http:", "https:", 1), says: "the model cannot be reached: TLS failed", inner: "127.0.0.1"},
		"no proxy": {base: plain.URL(), client: proxied, says: "the model cannot be reached", inner: "inner", detail: "//proxy.inner"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			model, err := NewOpenAI(c.base, "", c.client)
			if err != nil {
				t.Fatal(err)
			}
			_, err = model.Answer(t.Context(), json.RawMessage(chatRequest), untold)
			var failed *ModelError
			if !errors.As(err, &failed) || err.Error() != c.says || strings.Contains(err.Error(), c.inner) {
				t.Errorf("who asks is told: %v", err)
			}
			if failed != nil && (!strings.Contains(failed.Detail, c.detail) || strings.Contains(failed.Detail, "hunter2")) {
				t.Errorf("the log is told: %s", failed.Detail)
			}
		})
	}
}

// TestCallsLeaveTheirConnectionsToTheNext whether the provider streams or not.
func TestCallsLeaveTheirConnectionsToTheNext(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]modelserver.Reply{
		"in pieces": {Text: "word by word"},
		"whole":     {Text: "all at once", Whole: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := modelserver.New(t)
			model, err := NewOpenAI(server.URL(), "", nil)
			if err != nil {
				t.Fatal(err)
			}
			const together = 10
			for range 3 {
				held, thinks := reply, make(chan struct{})
				held.Hold = thinks
				server.Respond(func(modelserver.Call) modelserver.Reply { return held })
				var asking sync.WaitGroup
				for range together {
					asking.Go(func() {
						if _, err := model.Answer(t.Context(), json.RawMessage(chatRequest), untold); err != nil {
							t.Error(err)
						}
					})
				}
				for range together {
					<-server.Arrived()
				}
				close(thinks)
				asking.Wait()
			}
			connections := map[string]bool{}
			for _, call := range server.Calls() {
				connections[call.From] = true
			}
			if len(connections) != together {
				t.Errorf("%d calls took %d connections, no more than %d at a time", len(server.Calls()), len(connections), together)
			}
		})
	}
}
