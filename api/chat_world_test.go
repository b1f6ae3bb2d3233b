package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"mythiccache/cache"
)

func demoModels(t testing.TB) cache.Models {
	t.Helper()
	return models(t, "demo", "", "")
}

func models(t testing.TB, fallback, list, shared string) cache.Models {
	t.Helper()
	m, err := cache.ParseModels(fallback, list, shared)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// openAIClient is OpenAI's own, with an API key.
func (w *world) openAIClient(key string, more ...option.RequestOption) *openai.ChatCompletionService {
	options := append([]option.RequestOption{
		option.WithBaseURL(w.url + "/v1/"), option.WithAPIKey(key), option.WithMaxRetries(0),
	}, more...)
	service := openai.NewChatCompletionService(options...)
	return &service
}

// ann is a client of a user of that name.
func (w *world) ann(more ...option.RequestOption) *openai.ChatCompletionService {
	return w.openAIClient(strings.TrimPrefix(token(w.t, "ann"), "Bearer "), more...)
}

// chatAbout asks one thing.
func chatAbout(prompt string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "demo", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)}}
}

// attempt is one try of a worker at an answer.
type attempt struct {
	w     *world
	asked heard
	lease cache.Lease
	flow  *cache.FlowWriter
}

// begin takes the lease of an answer, as a worker does.
func (w *world) begin(q heard) *attempt {
	lease, err := w.store.Lease(context.Background(), w.view("ai_answer"), q.key, time.Minute)
	if err != nil {
		w.t.Error(err)
	}
	return &attempt{w: w, asked: q, lease: lease, flow: w.store.NewAnswers(w.view("ai_answer")).Flow(w.t.Context(), lease, func() {})}
}

// say tells a part of the text.
func (a *attempt) say(text string) {
	delta, _ := json.Marshal(map[string]string{"content": text})
	a.tell(cache.FlowPart{ID: "chatcmpl-1", Model: "demo-2", Created: 7, Delta: delta})
}

func (a *attempt) tell(part cache.FlowPart) {
	if err := a.flow.Add(part); err != nil {
		a.w.t.Error(err)
	}
}

// end stores an answer, and ends the flow.
func (a *attempt) end(answer cache.Answer) {
	ctx := context.Background()
	answer.Key, answer.ID, answer.Model, answer.Created = a.asked.key, "chatcmpl-1", "demo-2", 7
	if answer.FinishReason == "" {
		answer.FinishReason = "stop"
	}
	usage, _ := json.Marshal(answer.Usage)
	a.tell(cache.FlowPart{FinishReason: answer.FinishReason})
	a.tell(cache.FlowPart{Usage: usage})
	body, err := answer.Encode()
	if err != nil {
		a.w.t.Error(err)
	}
	if err := a.flow.Close(ctx); err != nil {
		a.w.t.Error(err)
	}
	if _, err := a.w.store.Put(ctx, a.lease, cache.Fill{Owner: a.asked.Scope, Owned: true, Body: body}); err != nil {
		a.w.t.Error(err)
	}
	if err := a.flow.End(ctx, cache.FlowDone); err != nil {
		a.w.t.Error(err)
	}
}

// die leaves an answer as a process does that is killed, and its lease as one that has
// run out.
func (a *attempt) die() {
	ctx := context.Background()
	if err := a.flow.Close(ctx); err != nil {
		a.w.t.Error(err)
	}
	if err := a.w.client.Del(ctx, "mythic:ai_answer:{"+a.asked.key+"}").Err(); err != nil {
		a.w.t.Error(err)
	}
}

// listened is a stream as it has been read.
type listened struct {
	*ssestream.Stream[openai.ChatCompletionChunk]
	openai.ChatCompletionAccumulator
	t      *testing.T
	chunks int
	usage  openai.CompletionUsage
}

func listen(t *testing.T, s *ssestream.Stream[openai.ChatCompletionChunk]) *listened {
	t.Helper()
	return &listened{Stream: s, t: t}
}

// until reads until the text has come, or the end where it is empty.
func (l *listened) until(text string) *listened {
	l.t.Helper()
	for (text == "" || l.text() != text) && l.Next() {
		l.chunks++
		c := l.Current()
		if !l.AddChunk(c) {
			l.t.Errorf("a chunk does not belong to the others: %s", c.RawJSON())
		}
		if c.Usage.TotalTokens > 0 {
			l.usage = c.Usage
		}
		if l.chunks == 1 && c.Choices[0].Delta.Role != "assistant" {
			l.t.Errorf("the first chunk is %s", c.RawJSON())
		}
	}
	if text != "" && l.text() != text {
		l.t.Fatalf("the stream has ended (%v) with %q, not %q", l.Err(), l.text(), text)
	}
	return l
}

func (l *listened) text() string {
	if len(l.Choices) == 0 {
		return ""
	}
	return l.Choices[0].Message.Content
}

// whole reads to the end, which has to be a good one.
func (l *listened) whole(text string) *listened {
	l.t.Helper()
	l.until("")
	if err := l.Err(); err != nil || l.text() != text || l.Choices[0].FinishReason == "" {
		l.t.Fatalf("the stream has ended (%v) with %q, not %q: %+v", err, l.text(), text, l.ChatCompletion)
	}
	return l
}

// joined waits until so many follow flows in this process.
func (w *world) joined(n int) func() error {
	return func() error {
		if got := w.server.flows.Following(); got != n {
			return fmt.Errorf("%d follow flows, not %d", got, n)
		}
		return nil
	}
}

// waits is done when so many wait for entries in this process.
func (w *world) waits(n int) func() error {
	return func() error {
		if got := w.server.misses.waiters.Waiting(); got != n {
			return fmt.Errorf("%d wait for entries, not %d", got, n)
		}
		return nil
	}
}

// chat posts a request without OpenAI's client, and holds the answer to the document.
func (w *world) chat(body string, headers ...string) *answer {
	w.t.Helper()
	return w.do(http.MethodPost, "/v1/chat/completions", body, headers...)
}

// openAI reads an error in OpenAI's form.
func (a *answer) openAI(t testing.TB) (kind, param, code, message string) {
	t.Helper()
	var told struct{ Error openAIError }
	if err := json.Unmarshal(a.body, &told); err != nil || told.Error.Message == "" || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d is no error in OpenAI's form: %s", a.StatusCode, a.body)
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	return told.Error.Type, text(told.Error.Param), text(told.Error.Code), told.Error.Message
}
