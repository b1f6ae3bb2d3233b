package modelserver

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
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
	Param      string        // of the error: the member that is wrong
	RetryAfter time.Duration // whole seconds in the header Retry-After, where it is not 0
	RetryAt    time.Time     // the same as a date

	Delay time.Duration   // the time the model thinks
	Hold  <-chan struct{} // the model thinks until this is closed

	Step    <-chan struct{} // each word of the text after the first waits for one of these
	Pace    time.Duration   // or for so long
	Says    func(piece int) // told before each piece is sent: 0 is the role, 1 the first word
	NoUsage bool            // it does not say what it cost

	Whole     bool   // it comes in one piece, whatever was asked for
	Cut       bool   // the connection breaks in the middle of the reply
	Malformed string // this in place of the JSON, or of a piece of it, under the same headers
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
	return r.Delay <= 0 || pause(ctx, closing, r.Delay)
}

// pause reports false where the client hung up or the server closed before its end.
func pause(ctx context.Context, closing <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
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

func (r Reply) write(ctx context.Context, w http.ResponseWriter, call Call, closing <-chan struct{}) {
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(r.RetryAfter.Seconds())))
	}
	if !r.RetryAt.IsZero() {
		w.Header().Set("Retry-After", r.RetryAt.UTC().Format(http.TimeFormat))
	}
	switch {
	case call.Stream && !r.Whole && (r.Status == 0 || r.Status == http.StatusOK):
		r.stream(ctx, w, call, closing)
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
		writeErrorOf(w, r.Status, r.Code, r.Message, r.Param)
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
	asked, said := Tokens(call.Prompt), Tokens(text)
	whole := map[string]any{
		"id": "chatcmpl-" + strconv.Itoa(call.Number), "object": "chat.completion", "created": 1750000000, "model": call.Model,
		"choices": []any{map[string]any{"index": 0, "message": message, "finish_reason": finish, "logprobs": nil}},
	}
	if !r.NoUsage {
		whole["usage"] = map[string]any{"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
	}
	return whole
}

// writeError writes an error in OpenAI's format.
func writeError(w http.ResponseWriter, status int, code, message string) {
	writeErrorOf(w, status, code, message, "")
}

func writeErrorOf(w http.ResponseWriter, status int, code, message, param string) {
	detail := map[string]any{"message": message, "type": "invalid_request_error", "param": nil, "code": nil}
	if code != "" {
		detail["code"] = code
	}
	if param != "" {
		detail["param"] = param
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
