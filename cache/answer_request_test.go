package cache

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestChatRequest(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"a prompt", `{"prompt":"Hi <b>"}`, `{"messages":[{"content":"Hi <b>","role":"user"}],"model":"default"}`},
		{"a prompt with more", `{"prompt":"Hi","temperature":0,"model":null}`, `{"messages":[{"content":"Hi","role":"user"}],"model":"default","temperature":0}`},
		{"a chat request", `{"messages":[{"role":"user","content":"Hi"}],"model":"m","n":1,"unheard":{"of":1}}`, `{"messages":[{"content":"Hi","role":"user"}],"model":"m","n":1,"unheard":{"of":1}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			request, err := ChatRequest(json.RawMessage(c.body), "default")
			if err != nil {
				t.Fatal(err)
			}
			if all, err := readMembers(request); err != nil || string(all.object()) != c.want || string(request) != c.want {
				t.Errorf("the request is %s (%v), not %s", request, err, c.want)
			}
		})
	}
}

func TestChatRequestRefuses(t *testing.T) {
	for _, c := range []struct{ name, body, says string }{
		{"no object", `"moon"`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"nothing asked", `{"model":"m"}`, "neither prompt nor messages"},
		{"no messages", `{"model":"m","messages":[]}`, "neither prompt nor messages"},
		{"another name's case", `{"Prompt":"moon"}`, "neither prompt nor messages"},
		{"both", `{"prompt":"moon","messages":[{}]}`, "exclude one another"},
		{"an empty prompt", `{"prompt":""}`, "prompt is not a text"},
		{"a prompt of parts", `{"prompt":["moon"]}`, "prompt is not a text"},
		{"a name twice", `{"prompt":"moon","prompt":"sun"}`, "a name comes twice"},
		{"a model that is none", `{"prompt":"moon","model":4}`, "model is not a name"},
		{"a model of more than a name", `{"prompt":"moon","model":"` + strings.Repeat("m", 257) + `"}`, "model is not a name"},
		{"a model of control characters", `{"prompt":"moon","model":"m\u0000"}`, "model is not a name"},
		{"two choices", `{"prompt":"moon","n":2}`, "n is not 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ChatRequest(json.RawMessage(c.body), "default")
			if !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("the error is %v", err)
			}
			if strings.Contains(err.Error(), "moon") {
				t.Errorf("the error quotes the request: %v", err)
			}
		})
	}
	if _, err := ChatRequest(json.RawMessage(`{"prompt":"moon"}`), ""); !errors.Is(err, ErrRequest) {
		t.Errorf("without any model the error is %v", err)
	}
}

func TestAnswerEncode(t *testing.T) {
	body, err := Answer{Key: "k", Model: "m", Text: "a < b & \"c\"", FinishReason: "stop", Usage: Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3}, Created: 7}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"key":"k","model":"m","text":"a < b & \"c\"","finish_reason":"stop","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3},"created":7}`
	if string(body) != want {
		t.Errorf("the body is %s", body)
	}
}
