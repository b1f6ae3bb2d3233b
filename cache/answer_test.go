package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The digests were computed apart from this program, over the canonical text
// that the second column writes out.
func TestAnswerKeyVectors(t *testing.T) {
	for _, c := range []struct{ name, provider, scope, request, canonical, key string }{
		{
			"plain", "openai", "user_1",
			`{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}`,
			`{"messages":[{"content":"Hello","role":"user"}],"model":"gpt-4o"}`,
			"bb0e32980cd63a8d0e449ea86d7ee92e21a49046f94a41e6021472a152015a54",
		},
		{
			"numbers are values; what does not change the answer is left out", "openai", "user_1",
			` { "user" : "user_1", "stream": true, "stream_options": {"include_usage": true}, "top_p": 1.0, "temperature": 7e-1,
				"model":"gpt-4o","messages":[{"role":"user","content":"\u0048ello"}]}`,
			`{"messages":[{"content":"Hello","role":"user"}],"model":"gpt-4o","temperature":0.7,"top_p":1}`,
			"67faa7983ceacc8bc4b1b63b0079d5a3e7ac6b4da0f5104488a7a929606ba6f8",
		},
		{
			"text outside ASCII", "openai", `user_ü\`,
			`{"model":"gpt-4o","messages":[{"role":"user","content":"Gr\u00fc\u00dfe, \"Ängström\"\n€\u003c&>\ud83d\udcd6"}]}`,
			`{"messages":[{"content":"Grüße, \"Ängström\"\n€<&>📖","role":"user"}],"model":"gpt-4o"}`,
			"18a65f8d28e3d51beeec8de70e8e447b3007e35aae02bc4eecddec8185c41669",
		},
		{
			"integers beyond a double keep their digits", "openai", "s",
			`{"seed":9007199254740993,"max_tokens":1e20,"model":"m","messages":[]}`,
			`{"max_tokens":100000000000000000000,"messages":[],"model":"m","seed":9007199254740993}`,
			"6bc7635458e6e4121d367ff060e0d2d3d84ab279967b9057d86fdbd6fc37a42f",
		},
		{"next to nothing", "", "s", `{}`, `{}`, "18fcad865a58dbbff72f9f2158de9b91a8acb1c790c90decef81b64778eaeb5c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			key, canonical, err := AnswerKey(c.provider, c.scope, json.RawMessage(c.request))
			if err != nil {
				t.Fatal(err)
			}
			if string(canonical) != c.canonical {
				t.Errorf("canonical form %s\nis not %s", canonical, c.canonical)
			}
			if key != c.key || !IsAnswerKey(key) {
				t.Errorf("key %s is not %s", key, c.key)
			}
		})
	}
}

// document is an object as a client might write it: its members have an order.
type document []member

type member struct {
	name  string
	value any // string, json.Number, bool, nil, []any or document
}

var documents = rapid.Custom(func(t *rapid.T) document { return drawDocument(t, 3) })

func drawDocument(t *rapid.T, depth int) document {
	names := rapid.SliceOfNDistinct(rapid.OneOf(
		rapid.SampledFrom([]string{"model", "messages", "temperature", "seed", "tools", "content", "role", "é", "\U0001f4d6", "\ufb33"}),
		rapid.StringN(1, 6, 12),
	), 1, 5, rapid.ID[string]).Draw(t, "names")
	var d document
	for _, name := range names {
		if slices.Contains([]string{"stream", "stream_options", "user"}, name) {
			continue
		}
		d = append(d, member{name, drawValue(t, depth-1)})
	}
	return d
}

func drawValue(t *rapid.T, depth int) any {
	kinds := 4
	if depth > 0 {
		kinds = 6
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return rapid.String().Draw(t, "text")
	case 1:
		return json.Number(strconv.FormatInt(rapid.Int64().Draw(t, "integer"), 10))
	case 2:
		return json.Number(strconv.FormatFloat(rapid.Float64Range(-1e9, 1e9).Draw(t, "number"), 'f', -1, 64))
	case 3:
		return rapid.SampledFrom([]any{true, false, nil}).Draw(t, "literal")
	case 4:
		list := make([]any, rapid.IntRange(0, 3).Draw(t, "length"))
		for i := range list {
			list[i] = drawValue(t, depth-1)
		}
		return list
	default:
		return drawDocument(t, depth)
	}
}

// write writes a value with its members in an order of the draw's choosing, and
// with blanks and escapes as it likes.
func write(t *rapid.T, value any) string {
	blank := func() string { return rapid.SampledFrom([]string{"", " ", "\n\t"}).Draw(t, "blank") }
	quote := func(s string) string {
		if rapid.Bool().Draw(t, "escape") {
			return `"` + escapeAll(s) + `"`
		}
		return string(canonicalString(s))
	}
	switch v := value.(type) {
	case document:
		var parts []string
		for _, m := range rapid.Permutation(v).Draw(t, "order") {
			parts = append(parts, blank()+quote(m.name)+blank()+":"+blank()+write(t, m.value))
		}
		return "{" + strings.Join(parts, ",") + blank() + "}"
	case []any:
		var parts []string
		for _, item := range v {
			parts = append(parts, blank()+write(t, item))
		}
		return "[" + strings.Join(parts, ",") + blank() + "]"
	case string:
		return quote(v)
	case json.Number:
		return string(v)
	default:
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

// escapeAll writes every character of the basic plane as \uXXXX.
func escapeAll(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r <= 0xffff {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func keyOf(t *rapid.T, provider, scope, request string) string {
	key, _, err := AnswerKey(provider, scope, json.RawMessage(request))
	if err != nil {
		t.Fatalf("%v: %s", err, request)
	}
	return key
}

func TestAnswerKeyIgnoresWriting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := documents.Draw(t, "request")
		withCaller := append(document{{"stream", true}, {"stream_options", document{{"include_usage", true}}}, {"user", "u"}}, d...)
		a, b := keyOf(t, "p", "s", write(t, d)), keyOf(t, "p", "s", write(t, withCaller))
		if a != b {
			t.Fatalf("two writings of one request have the keys %s and %s", a, b)
		}
	})
}

func TestAnswerKeySplits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := documents.Draw(t, "request")
		text := write(t, d)
		key := keyOf(t, "p", "s", text)
		for _, other := range []struct{ what, key string }{
			{"provider", keyOf(t, "p2", "s", text)},
			{"scope", keyOf(t, "p", "s2", text)},
			{"one more field", keyOf(t, "p", "s", write(t, append(document{{"unheard of", nil}}, d...)))},
			{"one field changed", keyOf(t, "p", "s", write(t, mutate(t, d)))},
		} {
			if other.key == key {
				t.Errorf("another %s has the same key", other.what)
			}
		}
	})
}

// mutate changes one leaf, however deep; of user and stream below the top, too.
func mutate(t *rapid.T, value any) any {
	switch v := value.(type) {
	case document:
		if len(v) == 0 {
			return document{{"user", "somebody"}, {"new", nil}}
		}
		v = slices.Clone(v)
		i := rapid.IntRange(0, len(v)-1).Draw(t, "member")
		v[i].value = mutate(t, v[i].value)
		return v
	case []any:
		if len(v) == 0 {
			return []any{nil}
		}
		v = slices.Clone(v)
		i := rapid.IntRange(0, len(v)-1).Draw(t, "item")
		v[i] = mutate(t, v[i])
		return v
	case string:
		return v + rapid.SampledFrom([]string{" ", "\x00", "x"}).Draw(t, "more")
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return json.Number(strconv.FormatUint(uint64(n)^1, 10))
		}
		return string(v) // the same as a text
	case bool:
		return !v
	default:
		return false
	}
}

func TestAnswerKeyRefuses(t *testing.T) {
	const secret = "the moon is a secret"
	fine := `{"model":"m"}`
	for _, c := range []struct{ name, scope, request string }{
		{"nothing", "s", ``},
		{"no JSON", "s", `{"model":"` + secret},
		{"no object", "s", `["` + secret + `"]`},
		{"two objects", "s", `{} {}`},
		{"a name twice", "s", `{"` + secret + `":1,"` + secret + `":2}`},
		{"a name twice, deeper", "s", `{"a":{"` + secret + `":1,"` + secret + `":2}}`},
		{"half a character", "s", `{"a":"` + secret + `\ud800"}`},
		{"no UTF-8", "s", "{\"a\":\"" + secret + "\xff\"}"},
		{"a number out of range", "s", `{"` + secret + `":1e999}`},
		{"no scope", "", fine},
		{"a long scope", strings.Repeat("s", MaxScope+1), fine},
		{"a scope that is no UTF-8", "\xff", fine},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := AnswerKey("p", c.scope, json.RawMessage(c.request))
			if !errors.Is(err, ErrRequest) {
				t.Fatalf("the error is %v", err)
			}
			if strings.Contains(err.Error(), "moon") {
				t.Errorf("the error quotes the request: %v", err)
			}
		})
	}
}

func FuzzAnswerKey(f *testing.F) {
	f.Add(`{"model":"m","seed":12345678901234567890,"messages":[{"content":"\"12345678901234567890\\"}]}`)
	f.Add(`{"a":[-0.0,1E5,-12345678901234567,"\\\"",{"b":[]}]}`)
	f.Fuzz(func(t *testing.T, request string) {
		key, canonical, err := AnswerKey("p", "s", json.RawMessage(request))
		if err != nil {
			if !errors.Is(err, ErrRequest) {
				t.Fatal(err)
			}
			return
		}
		again, twice, err := AnswerKey("p", "s", canonical)
		if err != nil || again != key || !bytes.Equal(twice, canonical) {
			t.Fatalf("the canonical form %s has the key %s, not %s (%v)", canonical, again, key, err)
		}
	})
}
