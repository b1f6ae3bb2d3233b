package cache_test

import (
	"encoding/json"
	"strings"
	"testing"

	"mythiccache/cache"
)

// drafted puts an answer together of deltas.
func drafted(t *testing.T, deltas ...string) cache.Answer {
	t.Helper()
	var d cache.Draft
	for _, delta := range deltas {
		if err := d.Add(cache.FlowPart{Delta: json.RawMessage(delta)}); err != nil {
			t.Fatal(err)
		}
	}
	a, err := d.Answer()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Some providers say again with each piece whose piece it is.
func TestDraftNamesOnce(t *testing.T) {
	call := func(arguments string) string {
		return `{"role":"assistant","tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"weather","arguments":` + arguments + `}}]}`
	}
	a := drafted(t, call(`"{\"town\":"`), call(`"\"Kiel"`), call(`"\"}"`))
	const want = `[{"function":{"arguments":"{\"town\":\"Kiel\"}","name":"weather"},"id":"call_1","type":"function"}]`
	if string(a.ToolCalls) != want {
		t.Errorf("the calls are %s", a.ToolCalls)
	}
}

// Texts grow wherever they stand, and are written as they are.
func TestDraftGrows(t *testing.T) {
	a := drafted(t, strings.Split(strings.Repeat(`{"content":"<a>","reasoning_content":"h & m","refusal":null};`, 3)+`{"content":null}`, ";")...)
	if a.Text != "<a><a><a>" || string(a.Other) != `{"reasoning_content":"h & mh & mh & m"}` || a.NoText || a.Refusal != "" {
		t.Errorf("the answer is %+v, with %s", a, a.Other)
	}
}

// What a model has not said is not there, however a provider writes that.
func TestDraftOfNothing(t *testing.T) {
	a := drafted(t, `{"content":null,"reasoning_content":null,"function_call":null,"tool_calls":null,"annotations":[]}`, `{"tool_calls":[],"content":""}`)
	if a.ToolCalls != nil || string(a.Other) != `{"annotations":[]}` || a.NoText {
		t.Errorf("the answer is %+v, with %s and %s", a, a.ToolCalls, a.Other)
	}
	if a := drafted(t, `{"content":"a","reasoning_content":null}`); a.Other != nil {
		t.Errorf("it has %s besides", a.Other)
	}
}

// What an answer cost is not known where it cannot be read; the answer is paid for.
func TestDraftOfOddUsage(t *testing.T) {
	for usage, want := range map[string]int64{`{"total_tokens":7}`: 7, `{"prompt_tokens":3,"total_tokens":7.5}`: 0, `"much"`: 0} {
		var d cache.Draft
		if err := d.Add(cache.FlowPart{Delta: json.RawMessage(`{"content":"a"}`), Usage: json.RawMessage(usage)}); err != nil {
			t.Fatal(err)
		}
		if a, err := d.Answer(); err != nil || a.Usage.TotalTokens != want || a.Usage.PromptTokens != 0 || a.Text != "a" {
			t.Errorf("of %s it makes %+v (%v)", usage, a, err)
		}
	}
}
