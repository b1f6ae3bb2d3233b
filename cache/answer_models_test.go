package cache

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestModelsStandForOneAnother(t *testing.T) {
	t.Parallel()
	m, err := ParseModels("writer", " writer=gpt-4o, gpt-4o-mini,, editor = gpt-4o", "gpt-4o-mini")
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Names(); !slices.Equal(got, []string{"writer", "gpt-4o-mini", "editor"}) {
		t.Errorf("the names are %q", got)
	}
	var keys []string
	for _, body := range []string{
		`{"prompt":"a title"}`, `{"prompt":"a title","model":"writer"}`, `{"prompt":"a title","model":"editor"}`, `{"prompt":"a title","model":"gpt-4o-mini"}`,
	} {
		request, model, err := m.Request(json.RawMessage(body))
		if err != nil {
			t.Fatal(err)
		}
		if m.Shared(model) != (model == "gpt-4o-mini") || !m.Sharing() {
			t.Errorf("whether %s is shared is wrong", model)
		}
		key, _, err := AnswerKey("p", "s", request)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	if keys[0] != keys[1] || keys[1] != keys[2] || keys[2] == keys[3] {
		t.Errorf("the keys are %q", keys)
	}
	if !m.Configured("gpt-4o") || m.Configured("writer") || m.Configured("gpt-5") {
		t.Error("what is configured are models, not their other names")
	}
	for _, unknown := range []string{"gpt-4o", "Writer"} {
		_, _, err := m.Request(json.RawMessage(`{"prompt":"a title","model":"` + unknown + `"}`))
		if !errors.Is(err, ErrModel) || !errors.Is(err, ErrRequest) {
			t.Errorf("%s is refused with %v", unknown, err)
		}
		if _, err := m.Meant(json.RawMessage(`{"prompt":"a title","model":"` + unknown + `"}`)); err != nil {
			t.Error(err)
		}
	}
}

// The digests were computed apart from this program. What is everybody's and what is
// the app's own have keys that no user's answers can have.
func TestModelsScopes(t *testing.T) {
	t.Parallel()
	const request = `{"messages":[{"content":"Hello","role":"user"}],"model":"gpt-4o"}`
	key, _, err := AnswerKey("openai", SharedScope, json.RawMessage(request))
	if err != nil || key != "6dc68c8be15003b7d209336dde37c4fcfa84febd554f5cdc5aaef2fe5bc89a67" {
		t.Errorf("the key of what is shared is %s (%v)", key, err)
	}
	once, _, err := OneTimeKey("openai", "user_1", "nonce 1", json.RawMessage(request))
	if err != nil || once != "5000d21522384900a986f33b8f209d214eb67ebf0863cc1077f01c0f05b84050" {
		t.Errorf("the key of what is asked once is %s (%v)", once, err)
	}
}

func TestModelsOfAnyName(t *testing.T) {
	t.Parallel()
	m, err := ParseModels("demo", "", "*")
	if err != nil {
		t.Fatal(err)
	}
	if _, model, err := m.Request(json.RawMessage(`{"prompt":"a title","model":"whatever"}`)); err != nil || model != "whatever" {
		t.Errorf("whatever is %q, %v", model, err)
	}
	if !m.Configured("demo") || m.Configured("whatever") {
		t.Error("a name that a caller made is configured")
	}
	if got := m.Names(); !slices.Equal(got, []string{"demo"}) || !m.Shared("whatever") {
		t.Errorf("the names are %q", got)
	}
	var none Models
	if _, _, err := none.Request(json.RawMessage(`{"prompt":"a title"}`)); !errors.Is(err, ErrRequest) || none.Shared("m") || len(none.Names()) > 0 {
		t.Errorf("without a default: %v", err)
	}
}

func TestModelsThatAreWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ fallback, list, shared, says string }{
		{"", "=x", "", `"=x" is neither`},
		{"", "x=", "", `"x=" is neither`},
		{"", "a,b=c,a=d", "", `"a" stands there twice`},
		{"z", "a,b", "", `does not name "z"`},
		{"", "a,b", "c", `AI_SHARED_MODELS: "c"`},
		{"", "a=b,b=c", "", `"a" stands for "b", which stands for another`},
	} {
		if _, err := ParseModels(c.fallback, c.list, c.shared); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q, %q, %q: %v", c.fallback, c.list, c.shared, err)
		}
	}
	if _, err := ParseModels("", "a=m,b", "m,b"); err != nil {
		t.Error(err)
	}
}
