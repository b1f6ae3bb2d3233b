package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"

	"mythiccache/cache"
)

// What two attempts at one answer can have to do with each other.
var (
	errDiffers = errors.New("the answer was begun anew, and is another one")
	errShort   = errors.New("the answer has not come as far as the one before it")
)

// toolCall is a call of a function, as far as it is looked at here.
type toolCall struct {
	ID       string          `json:"id,omitempty"`
	Type     string          `json:"type,omitempty"`
	Function *toolFunction   `json:"function,omitempty"`
	Custom   json.RawMessage `json:"custom,omitempty"` // of a call of another type
}

type toolFunction struct {
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments"`
}

// function returns the function, which calls of other types lack.
func (c toolCall) function() toolFunction {
	if c.Function == nil {
		return toolFunction{}
	}
	return *c.Function
}

// delta is a difference between two states of an answer.
type delta struct {
	Role      string          `json:"role,omitempty"`
	Content   *string         `json:"content,omitempty"`
	Refusal   *string         `json:"refusal,omitempty"`
	ToolCalls []toolCallDelta `json:"tool_calls,omitempty"`

	other json.RawMessage // in place of all these: members that have no field here
}

type toolCallDelta struct {
	Index int `json:"index"`
	toolCall
}

// restOf returns what has to be said of an answer to one who was told another: nothing
// that was said may be taken back. It returns errShort where it may yet turn out that
// the second repeats the first, and errDiffers where it does not.
func restOf(said, answer cache.Answer) ([]delta, error) {
	var deltas []delta
	other, err4 := restOfOther(said.Other, answer.Other)
	if other != nil { // first: reasoning comes before its answer
		deltas = append(deltas, delta{other: other})
	}
	content, err := restOfText(said.Text, answer.Text)
	refusal, err2 := restOfText(said.Refusal, answer.Refusal)
	for _, text := range splitText(content) {
		deltas = append(deltas, delta{Content: &text})
	}
	for _, text := range splitText(refusal) {
		deltas = append(deltas, delta{Refusal: &text})
	}
	calls, err3 := restOfCalls(said.ToolCalls, answer.ToolCalls)
	err = errors.Join(err, err2, err3, err4)
	switch {
	case errors.Is(err, errDiffers):
		return nil, errDiffers
	case errors.Is(err, errShort):
		return nil, errShort
	}
	return append(deltas, calls...), err
}

func restOfText(said, text string) (string, error) {
	rest, follows := strings.CutPrefix(text, said)
	switch {
	case follows:
		return rest, nil
	case strings.HasPrefix(said, text):
		return "", errShort
	}
	return "", errDiffers
}

// restOfOther does for members without a field what restOf does for the whole: texts are
// continued, objects hold others, and what is neither has to be the same.
func restOfOther(said, answer json.RawMessage) (json.RawMessage, error) {
	switch {
	case bytes.Equal(said, answer):
		return nil, nil
	case len(said) == 0:
		return answer, nil
	}
	before, err := readOther(said)
	after, err2 := readOther(answer)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	rest, err := restOfMembers(before, after)
	if err != nil || len(rest) == 0 {
		return nil, err
	}
	return plainJSON(rest)
}

func readOther(raw json.RawMessage) (members map[string]any, err error) {
	if len(raw) > 0 {
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber()
		err = decoder.Decode(&members)
	}
	return members, err
}

func restOfMembers(said, answer map[string]any) (map[string]any, error) {
	rest := map[string]any{}
	var failed error
	for name, now := range answer {
		old, told := said[name]
		if !told {
			rest[name] = now
			continue
		}
		more, err := restOfMember(name, old, now)
		failed = errors.Join(failed, err)
		if more != nil {
			rest[name] = more
		}
	}
	for name := range said {
		if _, there := answer[name]; !there {
			failed = errors.Join(failed, errShort)
		}
	}
	return rest, failed
}

// restOfMember returns what one has more than the other; nil for nothing.
func restOfMember(name string, said, answer any) (any, error) {
	switch old := said.(type) {
	case string:
		if now, ok := answer.(string); ok && !slices.Contains([]string{"id", "type", "role"}, name) { // as cache.Draft has it
			more, err := restOfText(old, now)
			if more == "" {
				return nil, err
			}
			return more, err
		}
	case map[string]any:
		if now, ok := answer.(map[string]any); ok {
			more, err := restOfMembers(old, now)
			if len(more) == 0 {
				return nil, err
			}
			return more, err
		}
	case []any:
		if now, ok := answer.([]any); ok && len(now) < len(old) && reflect.DeepEqual(old[:len(now)], now) {
			return nil, errShort
		}
	}
	if !reflect.DeepEqual(said, answer) {
		return nil, errDiffers
	}
	return nil, nil
}

// restOfCalls does for calls of tools what restOf does for the whole. A call whose
// beginning has been told is continued only with its arguments.
func restOfCalls(said, answer json.RawMessage) ([]delta, error) {
	before, err := readCalls(said)
	after, err2 := readCalls(answer)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if len(before) > len(after) {
		return nil, errShort
	}
	var deltas []delta
	tell := func(i int, call toolCall) {
		deltas = append(deltas, delta{ToolCalls: []toolCallDelta{{i, call}}})
	}
	for i, call := range after {
		function := call.function()
		arguments := function.Arguments
		if i < len(before) {
			old := before[i]
			if old.ID != call.ID || old.Type != call.Type || old.function().Name != function.Name || string(old.Custom) != string(call.Custom) {
				return nil, errDiffers
			}
			if arguments, err = restOfText(old.function().Arguments, arguments); err != nil {
				return nil, err
			}
		} else {
			if call.Function != nil {
				call.Function = &toolFunction{Name: function.Name}
			}
			tell(i, call)
		}
		for _, part := range splitText(arguments) {
			tell(i, toolCall{Function: &toolFunction{Arguments: part}})
		}
	}
	return deltas, nil
}

func readCalls(raw json.RawMessage) ([]toolCall, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var calls []toolCall
	err := json.Unmarshal(raw, &calls)
	return calls, err
}

// withoutRole takes the role out of a delta of the provider's; nil where nothing is left.
func withoutRole(raw json.RawMessage) json.RawMessage {
	if !strings.Contains(string(raw), `"role"`) {
		return raw
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return raw // what is no object says nothing of a role
	}
	delete(members, "role")
	for name, value := range members {
		if !given(value) || name == "content" && string(value) == `""` {
			delete(members, name)
		}
	}
	if len(members) == 0 {
		return nil
	}
	rest, err := json.Marshal(members)
	if err != nil {
		return raw
	}
	return rest
}
