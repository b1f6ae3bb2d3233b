package api

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"mythiccache/cache"
)

// completion is an answer in the form of OpenAI's API.
type completion struct {
	ID                string             `json:"id"`
	Object            string             `json:"object"`
	Created           int64              `json:"created"`
	Model             string             `json:"model"`
	Choices           []completionChoice `json:"choices"`
	Usage             cache.Usage        `json:"usage"`
	ServiceTier       string             `json:"service_tier,omitempty"`
	SystemFingerprint string             `json:"system_fingerprint,omitempty"`
}

type completionChoice struct {
	Index        int             `json:"index"`
	Message      json.RawMessage `json:"message"`
	Logprobs     json.RawMessage `json:"logprobs"`
	FinishReason string          `json:"finish_reason"`
}

// chunk is a part of one that is streamed.
type chunk struct {
	ID                string          `json:"id"`
	Object            string          `json:"object"`
	Created           int64           `json:"created"`
	Model             string          `json:"model"`
	ServiceTier       string          `json:"service_tier,omitempty"`
	SystemFingerprint string          `json:"system_fingerprint,omitempty"`
	Choices           []chunkChoice   `json:"choices"`
	Usage             json.RawMessage `json:"usage,omitempty"` // null in all but the last, where it was asked for
}

type chunkChoice struct {
	Index        int             `json:"index"`
	Delta        json.RawMessage `json:"delta"`
	Logprobs     json.RawMessage `json:"logprobs"`
	FinishReason *string         `json:"finish_reason"`
}

// completionID names an answer: as the provider did, else by its key.
func completionID(id, key string) string {
	if id != "" {
		return id
	}
	return "chatcmpl-" + key[:min(len(key), 29)]
}

// contentOf is the content of a message: null where calls or a refusal stand in its
// place, as a stream that began with an empty text does not say.
func contentOf(a cache.Answer, text string) any {
	if a.Text == "" && (a.NoText || a.Refusal != "" || len(a.ToolCalls) > 0) {
		return nil
	}
	return text
}

// newCompletion gives an answer OpenAI's form.
func newCompletion(a cache.Answer) (completion, error) {
	message := map[string]any{}
	if len(a.Other) > 0 {
		if err := json.Unmarshal(a.Other, &message); err != nil {
			return completion{}, err
		}
	}
	message["role"] = "assistant"
	message["content"], message["refusal"] = contentOf(a, a.Text), nil
	if a.Refusal != "" {
		message["refusal"] = a.Refusal
	}
	if len(a.ToolCalls) > 0 {
		message["tool_calls"] = a.ToolCalls
	}
	raw, err := plainJSON(message)
	if err != nil {
		return completion{}, err
	}
	return completion{
		ID: completionID(a.ID, a.Key), Object: "chat.completion", Created: a.Created, Model: a.Model, Usage: a.Usage,
		ServiceTier: a.ServiceTier, SystemFingerprint: a.SystemFingerprint,
		Choices: []completionChoice{{Message: raw, Logprobs: a.Logprobs, FinishReason: a.FinishReason}},
	}, nil
}

// plainJSON writes JSON with <, > and & as they are.
func plainJSON(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// chunkOfText is about how many bytes of an answer that is there go in one chunk.
const chunkOfText = 256

// splitText cuts a text into parts, behind a space where there is one near, and never
// inside a character.
func splitText(text string) []string {
	var parts []string
	for len(text) > chunkOfText {
		end := strings.LastIndexByte(text[:chunkOfText], ' ') + 1
		if end < chunkOfText/2 {
			for end = chunkOfText; end > chunkOfText-utf8.UTFMax && !utf8.RuneStart(text[end]); {
				end--
			}
		}
		parts = append(parts, text[:end])
		text = text[end:]
	}
	if text != "" {
		parts = append(parts, text)
	}
	return parts
}
