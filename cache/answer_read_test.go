package cache

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// wholeAnswer is one in which all is set that there is.
func wholeAnswer(t testing.TB) Answer {
	t.Helper()
	var a Answer
	fill(t, reflect.ValueOf(&a).Elem())
	return a
}

func fill(t testing.TB, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		switch field := v.Field(i).Addr().Interface().(type) {
		case *string:
			*field = "a \"\\\n\t < & é 📖 " + v.Type().Field(i).Name
		case *int64:
			*field = int64(i) - 3
		case *bool:
			*field = true
		case *json.RawMessage:
			*field = json.RawMessage(`{"a":[1,"]}\"",{"b":null}],"c":"\u2028"}`)
		case *Usage:
			fill(t, v.Field(i))
		default:
			t.Fatalf("nothing is known of %T", field)
		}
	}
}

// What is stored is read without encoding/json, whatever it has, and as it would read it.
func TestAnswersAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]Answer{
		"empty": {}, "whole": wholeAnswer(t), "text": {Key: "k", Model: "m", Text: strings.Repeat("Grüße, \"€\" 📖\\ ", 50), FinishReason: "stop", Created: 7},
		"null": {ToolCalls: json.RawMessage("null"), Other: json.RawMessage("[]"), Logprobs: json.RawMessage(`"]"`)},
	} {
		body, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		var want Answer
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatal(err)
		}
		if got, ok := readEncoded(body); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s is read as %+v (%t)", name, body, got, ok)
		}
	}
}

// FuzzReadAnswer holds what is read against what encoding/json reads.
func FuzzReadAnswer(f *testing.F) {
	whole, err := wholeAnswer(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	plain, err := Answer{Key: "k", Model: "m", Text: "text", FinishReason: "stop", Created: 7}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, change := range []struct{ old, new string }{
		{"", ""}, {`"text":"`, `"text":"\u0041`}, {`"text":"`, `"text":"\x`}, {`"text":"`, "\"text\":\"\n"}, {`"text":"`, "\"text\":\"\xff"}, {`"text":"`, `"Text":"`}, {`"text":"`, `"other":1,"text":"`},
		{`"created":`, `"created":0`}, {`"created":`, `"created":1e`}, {`"created":`, `"created": `}, {`"created":`, `"created":-`}, {`"created":`, `"created":99999999999999999999`},
		{`"usage":{`, `"usage":{"a":1,`}, {`"usage":`, `"usage":null,"x":`}, {`{"a":[1`, `{"a":[1 `}, {`{"a":[1`, `{"a":[01`},
		{`"no_text":true`, `"no_text":false`}, {`"finish_reason":"`, `"finish_reason":"\`}, {`}`, ``}, {`}`, `} `}, {`}`, `}}`}, {`"logprobs":`, `"logprobs": `},
	} {
		for _, body := range [][]byte{whole, plain} {
			f.Add([]byte(strings.Replace(string(body), change.old, change.new, 1)))
		}
	}
	f.Add(append(plain, '}'))
	f.Add(append(whole, " 1"...))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, ok := readEncoded(body)
		var want Answer
		if err := json.Unmarshal(body, &want); ok && (err != nil || !reflect.DeepEqual(got, want)) {
			t.Fatalf("%q is %+v, not %+v (%v)", body, got, want, err)
		}
	})
}

func BenchmarkReadAnswer(b *testing.B) {
	body, err := Answer{Key: strings.Repeat("k", 64), Model: "m", Text: strings.Repeat("Salt and light, and all that the sea gives back.\n", 12), FinishReason: "stop", Created: 7}.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadAnswer(body); err != nil {
			b.Fatal(err)
		}
	}
}
