package cache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// AnswerBusy begins the reason under which it is announced that an answer is not made
// now, though it might be later. See Busy.
const AnswerBusy = "busy: "

// BusyReason is the reason that Busy reads.
func BusyReason(after time.Duration, why string) string {
	return AnswerBusy + after.Round(time.Second).String() + ": " + why
}

// Busy reads the reason of an answer that is not made now: after what time it is worth
// to ask again, and why. It reports false for any other reason.
func Busy(reason string) (after time.Duration, why string, ok bool) {
	rest, ok := strings.CutPrefix(reason, AnswerBusy)
	if !ok {
		return 0, "", false
	}
	text, why, _ := strings.Cut(rest, ": ")
	after, err := time.ParseDuration(text)
	return max(after, time.Second), why, err == nil
}

// AnswerRefused begins the reason under which the failure of an answer is
// announced (see Store.Abandon) that trying again would not change.
const AnswerRefused = "refused: "

// ChatRequest makes the request that is sent to the model of what an app or a
// caller wrote: a chat request as OpenAI's API takes it, or the same with
// "prompt" in place of "messages", which stands for one message of the user. A
// request that names no model is given the default one. It is in canonical form.
//
// It refuses, wrapping ErrRequest, what could not be served rightly: no messages,
// no model, more than one choice.
func ChatRequest(body json.RawMessage, defaultModel string) (json.RawMessage, error) {
	all, _, err := readChat(body, defaultModel)
	if err != nil {
		return nil, err
	}
	return all.object(), nil
}

// readChat is ChatRequest; it returns the model's name too.
func readChat(body []byte, defaultModel string) (all members, model string, err error) {
	if all, err = readMembers(body); err != nil {
		return nil, "", err
	}
	if all, err = takePrompt(all); err != nil {
		return nil, "", err
	}
	if messages := all.get("messages"); len(messages) < len("[0]") || messages[0] != '[' {
		return nil, "", fmt.Errorf("%w: neither prompt nor messages say what is asked", ErrRequest)
	}
	if all, model, err = takeModel(all, defaultModel); err != nil {
		return nil, "", err
	}
	if n := all.get("n"); n != nil && !isNull(n) && string(n) != "1" {
		return nil, "", fmt.Errorf("%w: n is not 1; an answer has one choice", ErrRequest)
	}
	return all, model, nil
}

// takePrompt turns a prompt into messages.
func takePrompt(all members) (members, error) {
	prompt := all.get("prompt")
	switch {
	case prompt == nil:
		return all, nil
	case all.get("messages") != nil:
		return nil, fmt.Errorf("%w: prompt and messages exclude one another", ErrRequest)
	case prompt[0] != '"' || len(prompt) == len(`""`):
		return nil, fmt.Errorf("%w: prompt is not a text", ErrRequest)
	}
	messages := append(append([]byte(`[{"content":`), prompt...), `,"role":"user"}]`...)
	return all.without("prompt").with("messages", messages), nil
}

// maxModel bounds a model's name, in bytes: it stands in names of Redis's.
const maxModel = 256

// takeModel fills in the default model, and returns the name of the one there is.
func takeModel(all members, defaultModel string) (members, string, error) {
	raw := all.get("model")
	if raw != nil && !isNull(raw) {
		model, ok := textOf(raw)
		if !ok || model == "" || len(model) > maxModel || strings.ContainsFunc(model, unicode.IsControl) {
			return nil, "", fmt.Errorf("%w: model is not a name", ErrRequest)
		}
		return all, model, nil
	}
	if defaultModel == "" {
		return nil, "", fmt.Errorf("%w: it names no model, and there is no default one", ErrRequest)
	}
	return all.with("model", canonicalString(defaultModel)), defaultModel, nil
}

// textOf reads a string in canonical form.
func textOf(raw []byte) (string, bool) {
	if raw[0] != '"' {
		return "", false
	}
	return string(plainName(raw[1 : len(raw)-1])), true
}

func isNull(raw json.RawMessage) bool { return bytes.Equal(raw, []byte("null")) }

// Usage is what an answer cost, as the provider counts it.
type Usage struct {
	PromptTokens     int64 `json:"prompt_tokens"`
	CompletionTokens int64 `json:"completion_tokens"`
	TotalTokens      int64 `json:"total_tokens"`

	PromptDetails     json.RawMessage `json:"prompt_tokens_details,omitempty"`
	CompletionDetails json.RawMessage `json:"completion_tokens_details,omitempty"`
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

	// Brought says that the app brought it, and knows better than the model, which is not
	// asked again while it stands.
	Brought bool `json:"brought,omitempty"`

	// What OpenAI's completions have besides. NoText says that content was null.
	ID                string          `json:"id,omitempty"` // the provider's
	SystemFingerprint string          `json:"system_fingerprint,omitempty"`
	ServiceTier       string          `json:"service_tier,omitempty"`
	Refusal           string          `json:"refusal,omitempty"` // the model declined, and said this
	NoText            bool            `json:"no_text,omitempty"`
	Logprobs          json.RawMessage `json:"logprobs,omitempty"`
	Other             json.RawMessage `json:"other,omitempty"` // members of the message that have no field here
}

// Lasting reports whether an answer may answer others later: the model came to its end
// by itself, and said something. Providers have many words for the other ends.
func (a Answer) Lasting() bool {
	switch a.FinishReason {
	case "stop", "tool_calls", "function_call":
		return a.Refusal == "" && (a.Text != "" || says(a.ToolCalls) || a.saysOtherwise())
	}
	return false
}

// saysOtherwise reports whether the members without a field hold an answer, and not only
// what led to one, such as a reasoning, or what stands beside it.
func (a Answer) saysOtherwise() bool {
	var other struct {
		Call  json.RawMessage `json:"function_call"`
		Audio json.RawMessage `json:"audio"`
	}
	return len(a.Other) > 0 && json.Unmarshal(a.Other, &other) == nil && (says(other.Call) || says(other.Audio))
}

// says reports whether a member of a message is more than null or an empty list or object.
func says(raw json.RawMessage) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", "[]", "{}", `""`:
		return false
	}
	return true
}

// Truncated reports whether the model was cut short by a limit on tokens.
func (a Answer) Truncated() bool { return a.FinishReason == "length" }

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
