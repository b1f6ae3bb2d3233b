package modelserver

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// Tokens is what a text costs here: its words.
func Tokens(text string) int { return len(strings.Fields(text)) }

// stream writes the reply in pieces, as OpenAI's API does: the role, the text word by
// word (or tool calls, each argument in halves), how it ended, what it cost.
func (r Reply) stream(ctx context.Context, w http.ResponseWriter, call Call, closing <-chan struct{}) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	send := func(data string) {
		_, _ = w.Write([]byte("data: " + data + "\n\n")) // a client that is gone needs no reply
		_ = http.NewResponseController(w).Flush()
	}
	if r.Malformed != "" {
		send(r.Malformed)
		send("[DONE]")
		return
	}
	pieces := r.pieces(call)
	for i, piece := range pieces {
		if r.Step != nil && i > 1 {
			select {
			case <-r.Step:
			case <-ctx.Done():
				return
			case <-closing:
				return
			}
		}
		if r.Pace > 0 && i > 1 && !pause(ctx, closing, r.Pace) {
			return
		}
		if r.Cut && i == len(pieces)/2 {
			panic(http.ErrAbortHandler) // net/http's own way to break a connection
		}
		if r.Says != nil {
			r.Says(i)
		}
		send(piece)
	}
	send("[DONE]")
}

// pieces are the chunks of the reply.
func (r Reply) pieces(call Call) []string {
	text, finish := r.Text, r.FinishReason
	if text == "" && r.Refusal == "" && r.ToolCalls == nil {
		text = "You asked: " + call.Prompt
	}
	if finish == "" {
		finish = "stop"
	}
	deltas := []map[string]any{{"role": "assistant", "content": "", "refusal": nil}}
	for _, word := range strings.SplitAfter(text, " ") {
		if text != "" {
			deltas = append(deltas, map[string]any{"content": word})
		}
	}
	if r.Refusal != "" {
		deltas = append(deltas, map[string]any{"refusal": r.Refusal})
	}
	deltas = append(deltas, toolCalls(r.ToolCalls)...)
	var all []string
	for _, delta := range deltas {
		all = append(all, chunk(call, []any{map[string]any{"index": 0, "delta": delta, "logprobs": nil, "finish_reason": nil}}, nil))
	}
	all = append(all, chunk(call, []any{map[string]any{"index": 0, "delta": map[string]any{}, "logprobs": nil, "finish_reason": finish}}, nil))
	if call.Usage && !r.NoUsage {
		asked, said := Tokens(call.Prompt), Tokens(text)
		all = append(all, chunk(call, []any{}, map[string]any{"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}))
	}
	return all
}

// toolCalls cuts calls of tools into deltas.
func toolCalls(list json.RawMessage) []map[string]any {
	var calls []struct {
		ID       string `json:"id"`
		Type     string `json:"type"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	}
	if err := json.Unmarshal(list, &calls); err != nil {
		return nil // there are none
	}
	var deltas []map[string]any
	add := func(call map[string]any) { deltas = append(deltas, map[string]any{"tool_calls": []any{call}}) }
	for i, c := range calls {
		half := len(c.Function.Arguments) / 2
		add(map[string]any{"index": i, "id": c.ID, "type": c.Type, "function": map[string]any{"name": c.Function.Name, "arguments": ""}})
		add(map[string]any{"index": i, "function": map[string]any{"arguments": c.Function.Arguments[:half]}})
		add(map[string]any{"index": i, "function": map[string]any{"arguments": c.Function.Arguments[half:]}})
	}
	return deltas
}

// chunk is the object chat.completion.chunk of OpenAI's API.
func chunk(call Call, choices []any, usage any) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(map[string]any{
		"id": "chatcmpl-" + strconv.Itoa(call.Number), "object": "chat.completion.chunk", "created": 1750000000, "model": call.Model,
		"system_fingerprint": "fp_test", "choices": choices, "usage": usage,
	})
	if err != nil {
		panic(err) // it is made of texts and numbers
	}
	return strings.TrimSpace(text.String())
}
