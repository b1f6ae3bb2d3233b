package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/gowebpki/jcs"
)

// A member that is set stands where canonical form has it, whatever its neighbours are
// called, and what is there is replaced.
func TestMembersKeepTheirOrder(t *testing.T) {
	t.Parallel()
	names := []string{"", "m", "model", "models", "modem", "mode\x01", "model\x00", `model"`, `\`, "é", "\ue000", "😀", "}", "{", ",", `a":1,"b`, "messages", "user", "N"}
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		object := map[string]any{}
		for _, name := range names {
			if random.IntN(3) == 0 {
				object[name] = []any{map[string]any{"}": `"]`, "b": 1.5, "a": []any{}}, "x\\", nil}
			}
		}
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		all, err := readMembers(text)
		if err != nil || len(all) != len(object) {
			t.Fatalf("of %s there are %d members (%v)", text, len(all), err)
		}
		for name := range object {
			if canonical, err := jcs.Transform([]byte(`[{"b":1.50,"}":"\"]","a":[]},"x\\",null]`)); name == "model" && (err != nil || !bytes.Equal(all.get(name), canonical)) {
				t.Fatalf("%q is %s", name, all.get(name))
			}
		}
		object["model"] = "gpt"
		delete(object, "user")
		if text, err = json.Marshal(object); err == nil {
			text, err = jcs.Transform(text)
		}
		if got := all.with("model", []byte(`"gpt"`)).without("user").object(); err != nil || !bytes.Equal(got, text) {
			t.Fatalf("it is %s, not %s (%v)", got, text, err)
		}
	}
	if got := (members{}).object(); string(got) != "{}" {
		t.Errorf("nothing is %s", got)
	}
}

// Canonical form is that of jcs, and so is what has none, but for integers.
func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{
		`{"b":[1.50,-0,-0.0,1e21,1E-7,0.000001,123456789012345,true,null,false],"a":{"":"","\ud83d\ude00":1,"\ufb33":2,"😀x":3,"\ue000":4}}`,
		"{\"\\u000a\\/\\u001F\\u007f\\\"\\\\\":\"\\u2028\u2028\\b\\f\\n\\r\\t\x7f\"} ", `{"a":"\ud800"}`, `{"a":"\udc00\ud800"}`, `{"a":"\ud800x"}`, "{\"\xff\":1}",
		`{"a":1,"\u0061":2}`, `{"a":{"b":1,"b":1}}`, `{"a":1e999}`, `{"a":-1e-999}`, `{"a":[[[{}]],[]]}`, ` { } `, `[]`, `{"a":1}{}`, ``,
		`{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":-}`, `{"a":tru}`, `{"a":{"B":1,"\n":2,"\u0001":{"\u0002":0}}}`, `{"a" 1}`, `{"a":1,}`, `{,}`, `{"a":[1,]}`,
		`{"a":[,1]}`, `{"a":[1 2]}`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u00zz"}`,
		"{\"a\":\"\n\"}", `{"a":"`, `{"a":"\`, `{"a`, `{"a":1`,
	} {
		f.Add(seed)
	}
	integer := regexp.MustCompile(`\d{16}`)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := readMembers([]byte(text))
		if integer.MatchString(text) || strings.Contains(text, inOrder) || strings.Count(text, "[")+strings.Count(text, "{") > maxNesting {
			return
		}
		want, wrong := jcs.Transform([]byte(text))
		if wrong == nil && (!json.Valid([]byte(text)) || want[0] != '{') {
			wrong = errors.New("no object")
		}
		if got := all.object(); (err == nil) != (wrong == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%q is %q (%v), not %q (%v)", text, got, err, want, wrong)
		}
	})
}

// The order in which a schema's properties are written is that of what a model says.
func TestPropertiesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	const reasoned = `{"messages":[],"response_format":{"json_schema":{"schema":{"properties":{"reasoning":{"type":"string"},"answer":{"b":1,"a":2,"properties":{"z":1,"y":2}}},"type":"object"}}}}`
	key, request, err := AnswerKey("p", "s", json.RawMessage(reasoned))
	const want = `{"messages":[],"response_format":{"json_schema":{"schema":{"properties":{"reasoning":{"type":"string"},"answer":{"a":2,"b":1,"properties":{"z":1,"y":2}}},"type":"object"}}}}`
	if err != nil || string(request) != want {
		t.Errorf("the model is sent %s (%v)", request, err)
	}
	for written, same := range map[string]bool{
		`"type":"object","\u0070roperties":{"reasoning":{"type":"string"}, "answer":{"a":2,"properties":{"z":1,"y":2},"b":1}}`: true,
		`"properties":{"answer":{"a":2,"b":1,"properties":{"z":1,"y":2}},"reasoning":{"type":"string"}},"type":"object"`:       false,
		`"properties":{"reasoning":{"type":"string"},"answer":{"a":2,"b":1,"properties":{"y":2,"z":1}}},"type":"object"`:       false,
	} {
		other, _, err := AnswerKey("p", "s", json.RawMessage(`{"messages":[],"response_format":{"json_schema":{"schema":{`+written+`}}}}`))
		if err != nil || (other == key) != same {
			t.Errorf("%s has the key %s beside %s (%v)", written, other, key, err)
		}
	}
	if _, _, err := AnswerKey("p", "s", json.RawMessage(`{"properties":{"b":1,"a":2,"b":3}}`)); !errors.Is(err, ErrRequest) {
		t.Errorf("a name twice: %v", err)
	}
}

func TestNestingIsBounded(t *testing.T) {
	t.Parallel()
	for open, end := range map[string]string{`[`: `]`, `{"b":1,"a":`: `}`} {
		deep := func(n int) string { return `{"a":` + strings.Repeat(open, n) + `1` + strings.Repeat(end, n) + `}` }
		if _, err := readMembers([]byte(deep(maxNesting - 1))); err != nil {
			t.Error(err)
		}
		for _, n := range []int{maxNesting, 5000} {
			if _, err := readMembers([]byte(deep(n))); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), "deeper") {
				t.Errorf("%d of %s: %v", n, open, err)
			}
		}
	}
}

// A question has the key that AnswerKey gives, which reads it anew.
func TestQuestionsHaveTheSameKeys(t *testing.T) {
	t.Parallel()
	m, err := ParseModels("writer", "writer=gpt-4o", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{
		`{"prompt":"a \u20ac title","seed":12345678901234567890, "user":"ann","stream":true,"stream_options":{"include_usage":true}}`,
		`{"z":1e3,"messages":[{"role":"user","content":"x"}],"model":"writer","n":1.0,"a":{"z":1,"a":-0.0}}`,
	} {
		q, err := m.Question([]byte(body))
		if err != nil || q.Model != "gpt-4o" {
			t.Fatalf("%+v (%v)", q, err)
		}
		for _, scope := range []string{"user_1", SharedScope, `"é\`} {
			key, err := q.Key("openai", scope)
			want, canonical, err2 := AnswerKey("openai", scope, q.Request)
			if err := errors.Join(err, err2); err != nil || key != want || string(canonical) != string(q.Request) {
				t.Errorf("the key is %s, not %s; %s, not %s (%v)", key, want, q.Request, canonical, err)
			}
			once, err := q.OneTimeKey("openai", scope, "n")
			want, _, err2 = OneTimeKey("openai", scope, "n", q.Request)
			if err := errors.Join(err, err2); err != nil || once != want || once == key {
				t.Errorf("the key is %s, not %s (%v)", once, want, err)
			}
		}
		if _, err := q.Key("openai", ""); !errors.Is(err, ErrRequest) {
			t.Errorf("nobody's key: %v", err)
		}
	}
}

// Names with escapes are read once each, however often they are compared.
func TestNamesWithEscapesAreCheap(t *testing.T) { //nolint:paralleltest // it counts allocations
	const names = 5000
	var text strings.Builder
	text.WriteByte('{')
	for i := range names {
		fmt.Fprintf(&text, `"\n%d":%d,`, i*7919%names, i)
	}
	object := []byte(text.String()[:text.Len()-1] + "}")
	var all members
	var err error
	allocations := testing.AllocsPerRun(1, func() { all, err = readMembers(object) })
	if err != nil || len(all) != names || allocations > 2*names {
		t.Errorf("%d members (%v) with %.0f allocations", len(all), err, allocations)
	}
}

func BenchmarkCanonical(b *testing.B) {
	for name, text := range map[string]string{
		"small": `{"model":"writer","stream":false,"temperature":0.7,"messages":[{"role":"system","content":"You write books."},{"role":"user","content":"a title"}]}`,
		"long":  `{"model":"writer","messages":[{"role":"user","content":"` + strings.Repeat("Salt and light, and all that the sea gives back. ", 80) + `"}]}`,
		"names": func() string {
			var all strings.Builder
			for i := range 60_000 {
				fmt.Fprintf(&all, `,"\n%07d":1`, i*7919%60_000)
			}
			return "{" + all.String()[1:] + "}"
		}(),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := readMembers([]byte(text)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
