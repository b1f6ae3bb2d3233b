package cache

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// AnswerRefused begins the reason under which the failure of an answer is
// announced (see Store.Abandon) that trying again would not change.
const AnswerRefused = "refused: "

// ChatRequest makes the request that is sent to the model of what an app or a
// caller wrote: a chat request as OpenAI's API takes it, or the same with
// "prompt" in place of "messages", which stands for one message of the user. A
// request that names no model is given the default one.
//
// It refuses, wrapping ErrRequest, what could not be served rightly: no messages,
// no model, more than one choice.
func ChatRequest(body json.RawMessage, defaultModel string) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return nil, fmt.Errorf("%w: the request is not a JSON object", ErrRequest)
	}
	// A name that comes twice has been folded by now; look at the text itself.
	if _, err := canonicalObject(body); err != nil {
		return nil, err
	}
	if err := takePrompt(members); err != nil {
		return nil, err
	}
	var messages []json.RawMessage
	if err := json.Unmarshal(members["messages"], &messages); err != nil || len(messages) == 0 {
		return nil, fmt.Errorf("%w: neither prompt nor messages say what is asked", ErrRequest)
	}
	if err := takeModel(members, defaultModel); err != nil {
		return nil, err
	}
	if n, ok := members["n"]; ok && !isNull(n) && string(n) != "1" {
		return nil, fmt.Errorf("%w: n is not 1; an answer has one choice", ErrRequest)
	}
	request, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("%w: the request cannot be written", ErrRequest)
	}
	return request, nil
}

// takePrompt turns a prompt into messages.
func takePrompt(members map[string]json.RawMessage) error {
	raw, ok := members["prompt"]
	if !ok {
		return nil
	}
	if _, both := members["messages"]; both {
		return fmt.Errorf("%w: prompt and messages exclude one another", ErrRequest)
	}
	var prompt string
	if err := json.Unmarshal(raw, &prompt); err != nil || prompt == "" {
		return fmt.Errorf("%w: prompt is not a text", ErrRequest)
	}
	delete(members, "prompt")
	members["messages"] = json.RawMessage(`[{"role":"user","content":` + string(raw) + `}]`)
	return nil
}

// takeModel fills in the default model.
func takeModel(members map[string]json.RawMessage, defaultModel string) error {
	raw, ok := members["model"]
	if ok && !isNull(raw) {
		var model string
		if err := json.Unmarshal(raw, &model); err != nil || model == "" {
			return fmt.Errorf("%w: model is not a name", ErrRequest)
		}
		return nil
	}
	if defaultModel == "" {
		return fmt.Errorf("%w: it names no model, and there is no default one", ErrRequest)
	}
	members["model"] = canonicalString(defaultModel)
	return nil
}

func isNull(raw json.RawMessage) bool { return bytes.Equal(raw, []byte("null")) }

// Usage is what an answer cost, as the provider counts it.
type Usage struct {
	PromptTokens     int64 `json:"prompt_tokens"`
	CompletionTokens int64 `json:"completion_tokens"`
	TotalTokens      int64 `json:"total_tokens"`
}

// Answer is the body of a cached answer.
type Answer struct {
	Key          string          `json:"key"`
	Model        string          `json:"model"`
	Text         string          `json:"text"`
	ToolCalls    json.RawMessage `json:"tool_calls,omitempty"`
	FinishReason string          `json:"finish_reason"`
	Usage        Usage           `json:"usage"`
	Created      int64           `json:"created"` // Unix seconds
}

// Encode returns the answer's bytes as they are stored and served.
func (a Answer) Encode() ([]byte, error) {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(a); err != nil {
		return nil, fmt.Errorf("encode an answer: %w", err)
	}
	return bytes.TrimRight(body.Bytes(), "\n"), nil
}
