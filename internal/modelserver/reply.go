package modelserver

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Reply says how one call is answered. The zero Reply echoes the prompt.
type Reply struct {
	Text         string          // "You asked: " and the prompt where empty
	FinishReason string          // "stop" where empty
	Refusal      string          // the model declines, and says this
	ToolCalls    json.RawMessage // a JSON list

	Status     int           // an error, where it is not 0 or 200
	Code       string        // of the error
	Message    string        // of the error
	RetryAfter time.Duration // whole seconds in the header Retry-After, where it is not 0

	Delay time.Duration   // the time the model thinks
	Hold  <-chan struct{} // the model thinks until this is closed

	Cut       bool   // the connection breaks in the middle of the reply
	Malformed string // this in place of the JSON, under the same headers
}

// wait thinks, and reports false where the client hung up or the server closes.
func (r Reply) wait(ctx context.Context, closing <-chan struct{}) bool {
	if r.Hold != nil {
		select {
		case <-r.Hold:
		case <-ctx.Done():
			return false
		case <-closing:
			return false
		}
	}
	if r.Delay <= 0 {
		return true
	}
	timer := time.NewTimer(r.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-closing:
		return false
	}
}

func (r Reply) write(w http.ResponseWriter, call Call) {
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(r.RetryAfter.Seconds())))
	}
	switch {
	case r.Malformed != "":
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(r.Malformed)) // a client that is gone needs no reply
	case r.Cut:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"id":"chatcmpl-cut","choices":[{"message":{"content":"half an ans`))
		_ = http.NewResponseController(w).Flush() // or the status would not get through either
		panic(http.ErrAbortHandler)               // net/http's own way to break a connection
	case r.Status != 0 && r.Status != http.StatusOK:
		writeError(w, r.Status, r.Code, r.Message)
	default:
		writeJSON(w, http.StatusOK, r.completion(call))
	}
}

// completion is the object of the same name of OpenAI's API.
func (r Reply) completion(call Call) any {
	text, finish := r.Text, r.FinishReason
	if text == "" && r.Refusal == "" && r.ToolCalls == nil {
		text = "You asked: " + call.Prompt
	}
	if finish == "" {
		finish = "stop"
	}
	message := map[string]any{"role": "assistant", "content": text, "refusal": nil}
	if r.Refusal != "" {
		message["refusal"], message["content"] = r.Refusal, nil
	}
	if r.ToolCalls != nil {
		message["tool_calls"], message["content"] = r.ToolCalls, nil
	}
	asked, said := len(strings.Fields(call.Prompt)), len(strings.Fields(text))
	return map[string]any{
		"id": "chatcmpl-" + strconv.Itoa(call.Number), "object": "chat.completion", "created": 1750000000, "model": call.Model,
		"choices": []any{map[string]any{"index": 0, "message": message, "finish_reason": finish, "logprobs": nil}},
		"usage":   map[string]any{"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
	}
}

// writeError writes an error in OpenAI's format.
func writeError(w http.ResponseWriter, status int, code, message string) {
	detail := map[string]any{"message": message, "type": "invalid_request_error", "param": nil, "code": nil}
	if code != "" {
		detail["code"] = code
	}
	writeJSON(w, status, map[string]any{"error": detail})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
