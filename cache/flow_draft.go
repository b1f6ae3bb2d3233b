package cache

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Draft is an answer that is being put together of the parts of a flow. The zero
// value is empty.
type Draft struct {
	head     FlowPart
	message  map[string]any
	logprobs map[string]any
	finish   string
	usage    json.RawMessage
}

// errPart is what is wrong with a part that does not have the form of a chunk. It
// quotes nothing.
var errPart = errors.New("a part of the answer has another form than OpenAI's chunks")

// Add adds the next part.
func (d *Draft) Add(p FlowPart) error {
	if d.head.ID == "" {
		d.head.ID = p.ID
	}
	if d.head.Model == "" {
		d.head.Model = p.Model
	}
	if d.head.Created == 0 {
		d.head.Created = p.Created
	}
	if p.SystemFingerprint != "" {
		d.head.SystemFingerprint = p.SystemFingerprint
	}
	if p.ServiceTier != "" {
		d.head.ServiceTier = p.ServiceTier
	}
	if p.FinishReason != "" {
		d.finish = p.FinishReason
	}
	if len(p.Usage) > 0 {
		d.usage = p.Usage
	}
	var err, err2 error
	d.message, err = extend(d.message, p.Delta)
	d.logprobs, err2 = extend(d.logprobs, p.Logprobs)
	return errors.Join(err, err2)
}

// Text is the content so far.
func (d *Draft) Text() string {
	text, _ := textIn(d.message["content"])
	return text
}

// Finished reports whether the model has said how it ended.
func (d *Draft) Finished() bool { return d.finish != "" }

// Answer returns what has been put together. Its key is the caller's to set.
func (d *Draft) Answer() (Answer, error) {
	a := Answer{
		ID: d.head.ID, Model: d.head.Model, Created: d.head.Created, SystemFingerprint: d.head.SystemFingerprint, ServiceTier: d.head.ServiceTier,
		FinishReason: d.finish, Text: d.Text(),
	}
	if err := json.Unmarshal(d.usage, &a.Usage); err != nil {
		a.Usage = Usage{} // it is paid for, whatever the provider counts
	}
	_, hasText := textIn(d.message["content"])
	a.NoText = !hasText
	a.Refusal, _ = textIn(d.message["refusal"])
	other := map[string]any{}
	var err error
	for name, value := range d.message {
		switch name {
		case "content", "refusal", "role":
		case "tool_calls":
			calls := withoutIndex(value)
			if len(calls) == 0 {
				continue // as if nothing had been said of them
			}
			if a.ToolCalls, err = rawOf(calls); err != nil {
				return Answer{}, err
			}
		default:
			if value != nil { // some write a null for all that the model might have said and has not
				other[name] = value
			}
		}
	}
	if len(other) > 0 {
		if a.Other, err = rawOf(other); err != nil {
			return Answer{}, err
		}
	}
	if len(d.logprobs) > 0 {
		a.Logprobs, err = rawOf(d.logprobs)
	}
	return a, err
}

// extend adds a delta, a JSON object or null, to what has come before it.
func extend(into map[string]any, delta json.RawMessage) (map[string]any, error) {
	if len(delta) == 0 || isNull(delta) {
		return into, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(delta))
	decoder.UseNumber()
	var members map[string]any
	if err := decoder.Decode(&members); err != nil {
		return into, errPart
	}
	if into == nil {
		into = map[string]any{}
	}
	merge(into, members)
	return into, nil
}

// merge adds the members of a delta: texts are continued, objects are merged, and the
// elements of a list are found by their index where they have one. What names
// something is not continued, since some providers repeat it.
func merge(into, delta map[string]any) {
	for name, value := range delta {
		old, there := into[name]
		if value == nil && there {
			continue
		}
		switch v := value.(type) {
		case string:
			into[name] = continued(name, old, v)
		case map[string]any:
			before, ok := old.(map[string]any)
			if !ok {
				before = map[string]any{}
				into[name] = before
			}
			merge(before, v)
		case []any:
			before, ok := old.([]any)
			if !ok {
				before = []any{} // which is no null
			}
			into[name] = mergeList(before, v)
		default:
			into[name] = value
		}
	}
}

// words is a text that grows.
type words struct{ strings.Builder }

// MarshalJSON writes it as any text.
func (w *words) MarshalJSON() ([]byte, error) { return rawOf(w.String()) }

// textIn returns the text that a value is.
func textIn(value any) (text string, ok bool) {
	if w, ok := value.(*words); ok {
		return w.String(), true
	}
	text, ok = value.(string)
	return text, ok
}

// continued is a member that was old, and of which a delta says more.
func continued(name string, old any, more string) any {
	before, ok := old.(string)
	grown, grows := old.(*words)
	switch {
	case !ok && !grows:
		return more
	case slices.Contains([]string{"id", "type", "role", "name"}, name):
		if more == "" {
			return old
		}
		return more
	case !grows:
		grown = &words{}
		grown.WriteString(before)
	}
	grown.WriteString(more)
	return grown
}

func mergeList(into, delta []any) []any {
	for _, one := range delta {
		object, ok := one.(map[string]any)
		index, indexed := object["index"].(json.Number)
		if !ok || !indexed {
			into = append(into, one)
			continue
		}
		at := slices.IndexFunc(into, func(old any) bool {
			o, _ := old.(map[string]any)
			return o["index"] == index
		})
		if at < 0 {
			at = len(into)
			into = append(into, map[string]any{})
		}
		if o, ok := into[at].(map[string]any); ok {
			merge(o, object)
		}
	}
	return into
}

// withoutIndex takes the index off the elements of a list, as it stands in a whole
// completion.
func withoutIndex(list any) []any {
	elements, _ := list.([]any)
	slices.SortStableFunc(elements, func(a, b any) int { return cmp.Compare(indexOf(a), indexOf(b)) })
	bare := make([]any, len(elements))
	for i, one := range elements {
		object, ok := one.(map[string]any)
		if !ok {
			bare[i] = one
			continue
		}
		b := map[string]any{}
		for name, value := range object {
			if name != "index" {
				b[name] = value
			}
		}
		bare[i] = b
	}
	return bare
}

// indexOf returns the place of an element that says it; 0 for others.
func indexOf(element any) int64 {
	object, _ := element.(map[string]any)
	number, _ := object["index"].(json.Number)
	index, _ := number.Int64() // 0 for what is no integer
	return index
}

func rawOf(value any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return nil, fmt.Errorf("put an answer together: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
