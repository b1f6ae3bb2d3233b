package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"

	"mythiccache/internal/modelserver"
)

// chat is OpenAI's own client of this process, for a user.
func (s *system) chat(user string) *openai.ChatCompletionService {
	service := openai.NewChatCompletionService(
		option.WithBaseURL(s.base+"/v1/"), option.WithAPIKey(token(user)), option.WithMaxRetries(0),
	)
	return &service
}

// about asks one thing, with the usage at the end of streams.
func about(prompt string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "writer", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)}}
}

// streamed is what a stream has told.
type streamed struct {
	openai.ChatCompletionAccumulator
	err error
}

// text is what has been told of the answer's text.
func (s *streamed) text() string {
	if len(s.Choices) == 0 {
		return ""
	}
	return s.Choices[0].Message.Content
}

// follow asks and reads to the end. Each text that has been told by then goes to heard,
// where there is one.
func follow(t testing.TB, c *openai.ChatCompletionService, params openai.ChatCompletionNewParams, heard chan<- string) *streamed {
	t.Helper()
	params.StreamOptions.IncludeUsage = param.NewOpt(true)
	chunks := c.NewStreaming(t.Context(), params)
	var all streamed
	for chunks.Next() {
		before := all.text()
		if !all.AddChunk(chunks.Current()) {
			t.Errorf("a chunk does not belong to the others: %s", chunks.Current().RawJSON())
		}
		if text := all.text(); text != before && heard != nil {
			heard <- text
		}
	}
	all.err = chunks.Err()
	return &all
}

// OpenAI's client against the program, and the program against a model.
func TestChatCompletions(t *testing.T) {
	t.Parallel()
	model := modelserver.New(t)
	step := make(chan struct{})
	tool := json.RawMessage(`[{"id":"call_1","type":"function","function":{"name":"look","arguments":"{\"at\": \"the <sea>\"}"}}]`)
	model.Respond(func(c modelserver.Call) modelserver.Reply {
		switch c.Prompt {
		case "slowly":
			return modelserver.Reply{Text: "one two three four five six seven eight", Step: step}
		case "with tools":
			return modelserver.Reply{ToolCalls: tool, FinishReason: "tool_calls"}
		case "declined":
			return modelserver.Reply{Refusal: "I would rather not."}
		case "too long":
			return modelserver.Reply{Status: http.StatusBadRequest, Code: "context_length_exceeded", Message: c.Prompt}
		case "too dear":
			return modelserver.Reply{Status: http.StatusTooManyRequests, Code: "insufficient_quota", Message: c.Prompt}
		}
		return modelserver.Reply{}
	})
	s := newSystem(t, map[string]string{"LLM_BASE_URL": model.URL(), "LLM_MODEL": "writer"})
	ann := s.chat("ann")
	t.Run("word by word", func(t *testing.T) { tellSlowly(t, ann, step) })
	t.Run("tools", func(t *testing.T) {
		for range 2 { // made, then there
			got := follow(t, ann, about("with tools"), nil)
			if got.err != nil || got.Choices[0].FinishReason != "tool_calls" {
				t.Fatalf("the stream ended with %v: %+v", got.err, got.ChatCompletion)
			}
			calls := got.Choices[0].Message.ToolCalls
			if len(calls) != 1 || calls[0].ID != "call_1" || calls[0].Function.Name != "look" || calls[0].Function.Arguments != `{"at": "the <sea>"}` {
				t.Errorf("the calls are %+v", calls)
			}
		}
		whole, err := ann.New(t.Context(), about("with tools"))
		if err != nil || whole.Choices[0].Message.ToolCalls[0].Function.Arguments != `{"at": "the <sea>"}` {
			t.Errorf("the whole is %+v (%v)", whole, err)
		}
	})
	t.Run("declined", func(t *testing.T) {
		got := follow(t, ann, about("declined"), nil)
		if got.err != nil || got.Choices[0].Message.Refusal != "I would rather not." {
			t.Errorf("the stream ended with %v: %+v", got.err, got.ChatCompletion)
		}
		if whole, err := ann.New(t.Context(), about("declined")); err != nil || whole.Choices[0].Message.Refusal != "I would rather not." {
			t.Errorf("the whole is %+v (%v)", whole, err)
		}
	})
	t.Run("an error", func(t *testing.T) {
		for _, err := range []error{
			follow(t, ann, about("too long"), nil).err,
			func() error { _, err := ann.New(t.Context(), about("too long")); return err }(),
		} {
			var told *openai.Error
			if !errors.As(err, &told) || told.StatusCode != http.StatusBadRequest || told.Code != "context_length_exceeded" {
				t.Errorf("the error is %v", err)
			}
		}
	})
	t.Run("no money", func(t *testing.T) {
		for _, err := range []error{
			func() error { _, err := ann.New(t.Context(), about("too dear")); return err }(),
			follow(t, ann, about("too dear"), nil).err,
		} {
			var told *openai.Error
			if !errors.As(err, &told) || told.StatusCode != http.StatusTooManyRequests || told.Code != "insufficient_quota" ||
				told.Response.Header.Get("X-Should-Retry") != "false" {
				t.Errorf("the error is %v", err)
			}
		}
	})
	t.Run("in our own form", func(t *testing.T) {
		for _, prompt := range []string{"too long", "too dear", "too long", "too dear"} {
			a := s.request(http.MethodPost, "/ai/answers", token("ann"), http.Header{"Content-Type": {"application/json"}}, []byte(`{"prompt":"`+prompt+`"}`))
			if a.status != http.StatusBadGateway && a.status != http.StatusAccepted { // where it was not told in time
				t.Errorf("%s: %d %s", prompt, a.status, a.body)
			}
		}
	})
	prompts := map[string]int{}
	for _, call := range model.Calls() {
		prompts[call.Prompt]++
	}
	if prompts["slowly"] != 1 || prompts["with tools"] != 1 || prompts["too long"] != 1 || prompts["too dear"] != 1 {
		t.Errorf("the model was called %v", prompts)
	}
	if strings.Contains(s.log.String(), "slowly") {
		t.Error("a prompt is in the log")
	}
	s.everythingExpires()
}

// tellSlowly holds back each word until the one before has come through.
func tellSlowly(t *testing.T, c *openai.ChatCompletionService, step chan struct{}) {
	t.Helper()
	heard := make(chan string, 100)
	var all *streamed
	var reading sync.WaitGroup
	reading.Go(func() { all = follow(t, c, about("slowly"), heard) })
	words := strings.SplitAfter("one two three four five six seven eight", " ")
	var took []time.Duration
	for i := range words {
		began := time.Now()
		if i > 0 {
			step <- struct{}{}
		}
		want := strings.Join(words[:i+1], "")
		select {
		case got := <-heard:
			if got != want {
				t.Fatalf("it was told %q, not %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("it was not told %q", want)
		}
		if i > 0 {
			took = append(took, time.Since(began))
		}
	}
	late := make(chan string, 100)
	reading.Go(func() { follow(t, c, about("slowly"), late) })
	if got := <-late; got != strings.Join(words, "") {
		// What there is may come in several chunks.
		for got != strings.Join(words, "") {
			got = <-late
		}
	}
	close(step)
	reading.Wait()
	if all.err != nil || all.text() != strings.Join(words, "") || all.Choices[0].FinishReason != "stop" || all.Usage.TotalTokens != 9 {
		t.Errorf("the stream ended with %v: %+v", all.err, all.ChatCompletion)
	}
	hit := follow(t, c, about("slowly"), nil)
	if hit.text() != all.text() || hit.ID != all.ID || hit.Created != all.Created || hit.Usage.TotalTokens != all.Usage.TotalTokens {
		t.Errorf("the hit is %+v, and what was made %+v", hit.ChatCompletion, all.ChatCompletion)
	}
	slices.Sort(took)
	t.Logf("from the model to the client: %s at the median, %s at most", took[len(took)/2], took[len(took)-1])
}
