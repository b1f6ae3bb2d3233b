package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"mythiccache/cache"
)

// Texts are written as encoding/json writes them, but for <, > and &.
func FuzzAppendText(f *testing.F) {
	for _, seed := range []string{"", "a <b> & c", "\"\\\b\f\n\r\t\x00\x1f\x7f", "é😀\u2028\u2029\ufffd", "a\xffb\xe2\x80", "\xed\xa0\x80"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want, err := plainJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendText(nil, text); !bytes.Equal(got, want) {
			t.Fatalf("%q is %s, not %s", text, got, want)
		}
	})
}

// A completion has each member that OpenAI's have, in whatever state its answer is.
func TestCompletionsAreWhole(t *testing.T) {
	full := answerLike("0123456789abcdef0123456789abcdef0123")
	full.Refusal, full.Other, full.Logprobs = "no", json.RawMessage(`{"reasoning_content":"as \"I\" see it"}`), json.RawMessage(`{"content":[]}`)
	for name, c := range map[string]struct {
		answer cache.Answer
		want   string
	}{
		"next to nothing": {cache.Answer{Key: "k", FinishReason: "stop"}, `{"id":"chatcmpl-k","object":"chat.completion","created":0,"model":"","choices":[` +
			`{"index":0,"message":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}`},
		"no text": {cache.Answer{ID: "x", NoText: true, Other: json.RawMessage(`{}`)}, `{"id":"x","object":"chat.completion","created":0,"model":"","choices":[` +
			`{"index":0,"message":{"role":"assistant","content":null,"refusal":null},"logprobs":null,"finish_reason":""}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}`},
	} {
		if got := appendCompletion(nil, &c.answer); string(got) != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	var got struct {
		Choices []struct {
			Message  map[string]json.RawMessage
			Logprobs json.RawMessage
		}
		Usage             cache.Usage
		ServiceTier       string `json:"service_tier"`
		SystemFingerprint string `json:"system_fingerprint"`
	}
	if err := json.Unmarshal(appendCompletion(nil, &full), &got); err != nil {
		t.Fatal(err)
	}
	m := got.Choices[0].Message
	if string(m["refusal"]) != `"no"` || string(m["reasoning_content"]) != `"as \"I\" see it"` || !bytes.Equal(m["tool_calls"], full.ToolCalls) || string(got.Choices[0].Logprobs) != `{"content":[]}` ||
		got.ServiceTier != "default" || got.SystemFingerprint != "fp_1" || string(got.Usage.PromptDetails) != `{"cached_tokens":1}` {
		t.Errorf("it is %+v", got)
	}
}

// What is told of a second attempt continues the first in all its members, or is an error.
func TestRestOfOtherMembers(t *testing.T) {
	const told = `{"reasoning_content":"First,","function_call":{"name":"look","arguments":"{\"a\""}}`
	for name, c := range map[string]struct {
		said, answer, rest string
		err                error
	}{
		"nothing":       {``, ``, ``, nil},
		"the same":      {told, told, ``, nil},
		"a beginning":   {``, told, told, nil},
		"more":          {told, `{"reasoning_content":"First, think","function_call":{"arguments":"{\"a\":1}","name":"look"},"x":[1]}`, `{"function_call":{"arguments":":1}"},"reasoning_content":" think","x":[1]}`, nil},
		"less":          {told, `{"reasoning_content":"First, think"}`, ``, errShort},
		"shorter":       {told, `{"reasoning_content":"Fir","function_call":{"name":"look","arguments":"{\"a\":1}"}}`, ``, errShort},
		"nothing yet":   {told, ``, ``, errShort},
		"another":       {told, `{"reasoning_content":"Second","function_call":{"name":"look","arguments":""}}`, ``, errDiffers},
		"another call":  {told, `{"reasoning_content":"First,","function_call":{"name":"go","arguments":"{\"a\":1}"}}`, ``, errDiffers},
		"a longer name": {`{"audio":{"id":"a"}}`, `{"audio":{"id":"ab"}}`, ``, errDiffers},
		"a list":        {`{"x":[1,2]}`, `{"x":[1]}`, ``, errShort},
		"another list":  {`{"x":[1]}`, `{"x":[2,3]}`, ``, errDiffers},
		"another kind":  {`{"x":"1"}`, `{"x":1}`, ``, errDiffers},
	} {
		rest, err := restOf(cache.Answer{Other: json.RawMessage(c.said)}, cache.Answer{Other: json.RawMessage(c.answer)})
		var got string
		if len(rest) > 0 {
			got = string(rest[0].other)
		}
		if !errors.Is(err, c.err) || err == nil && (got != c.rest || len(rest) > 1) {
			t.Errorf("%s: %q (%v)", name, got, err)
		}
	}
}

// Nobody is told the reasons of one attempt and the answer of another.
func TestChatKeepsReasonsTogether(t *testing.T) {
	for name, second := range map[string]string{"the same": "because", "others": "why not"} {
		t.Run(name, func(t *testing.T) {
			w := begin(t)
			asked := make(chan heard, 10)
			w.answerer(func(q heard) { asked <- q })
			streams := make(chan *ssestream.Stream[openai.ChatCompletionChunk])
			go func() { streams <- w.ann().NewStreaming(t.Context(), chatAbout("a title")) }()
			q := <-asked
			reason := func(text string) cache.FlowPart {
				delta, _ := json.Marshal(map[string]string{"reasoning_content": text})
				return cache.FlowPart{ID: "chatcmpl-1", Model: "demo-2", Created: 7, Delta: delta}
			}
			first := w.begin(q)
			first.tell(reason("beca"))
			stream := <-streams
			reasons, text := "", ""
			read := func(until string) {
				for (until == "" || reasons != until) && stream.Next() {
					var c struct {
						Choices []struct {
							Delta struct {
								Reasons string `json:"reasoning_content"`
								Content string
							}
						}
					}
					if err := json.Unmarshal([]byte(stream.Current().RawJSON()), &c); err != nil || len(c.Choices) != 1 {
						t.Fatalf("a chunk is %s (%v)", stream.Current().RawJSON(), err)
					}
					reasons, text = reasons+c.Choices[0].Delta.Reasons, text+c.Choices[0].Delta.Content
				}
			}
			read("beca")
			first.die()
			next := w.begin(q)
			next.tell(reason(second[:3]))
			next.tell(reason(second[3:]))
			next.say("Salt")
			other, _ := json.Marshal(map[string]string{"reasoning_content": second})
			next.end(cache.Answer{Text: "Salt", Other: other})
			read("")
			if err := stream.Err(); name == "the same" && (err != nil || reasons != "because" || text != "Salt") ||
				name == "others" && (err == nil || !strings.Contains(err.Error(), "answer_interrupted") || reasons != "beca" || text != "") {
				t.Errorf("it was told %q, then %q (%v)", reasons, text, err)
			}
		})
	}
}
