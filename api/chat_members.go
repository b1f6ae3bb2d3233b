package api

import (
	"encoding/json"
	"errors"
	"fmt"
)

// chatMembers are the members of a request that are looked at here.
type chatMembers struct {
	stream, usage bool
	user          string
}

// read takes the members from a body. Its errors are problems that quote nothing. Of a
// body that is no JSON it may find none: that is for who reads all of it.
func (m *chatMembers) read(body []byte) error {
	var all chatRequest
	if eachMember(body, all.add) {
		found := chatMembers{}
		if found.judge(&all) == nil {
			*m = found
			return nil
		}
	}
	return m.readWhole(body)
}

// readWhole is read by encoding/json, which knows what is wrong with a body.
func (m *chatMembers) readWhole(body []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return problem(kindBadRequest, "the request is not a JSON object")
	}
	var all chatRequest
	for name, value := range members {
		all.add([]byte(name), value)
	}
	return m.judge(&all)
}

// chatRequest is what is looked at of a request, as it is written.
type chatRequest struct {
	stream, options, user, model, prompt, n, modalities, audio, messages json.RawMessage
}

// add adds a member. Of two that have one name the last counts.
func (r *chatRequest) add(name, value []byte) {
	switch string(name) {
	case "stream":
		r.stream = value
	case "stream_options":
		r.options = value
	case "user":
		r.user = value
	case "model":
		r.model = value
	case "prompt":
		r.prompt = value
	case "n":
		r.n = value
	case "modalities":
		r.modalities = value
	case "audio":
		r.audio = value
	case "messages":
		r.messages = value
	}
}

// judge reads the members, and says what is wrong with them.
func (m *chatMembers) judge(r *chatRequest) (err error) {
	if m.stream, err = takeBool("stream", r.stream); err != nil {
		return err
	}
	if m.usage, err = takeUsage(r.options); err != nil {
		return err
	}
	if m.user, err = takeText("user", r.user); err != nil {
		return err
	}
	if _, err = takeText("model", r.model); err != nil {
		return err
	}
	if given(r.options) && !m.stream {
		return wrongParam("stream_options", "stream_options are for streams: set stream to true")
	}
	if r.prompt != nil {
		return wrongParam("prompt", "a chat completion has messages, not a prompt")
	}
	if !isOne(r.n) {
		return wrongParam("n", "n is not 1; an answer has one choice")
	}
	if err := r.onlyText(); err != nil {
		return err
	}
	return readMessages(r.messages)
}

func takeBool(name string, raw json.RawMessage) (is bool, err error) {
	switch {
	case !given(raw), string(raw) == "false":
		return false, nil
	case string(raw) == "true":
		return true, nil
	}
	return false, wrongParam(name, name+" is not a boolean")
}

func takeText(name string, raw json.RawMessage) (string, error) {
	if !given(raw) {
		return "", nil
	}
	if text, plain := plainText(raw); plain {
		return text, nil
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return "", wrongParam(name, name+" is not a text")
	}
	return text, nil
}

// takeUsage reads stream_options.
func takeUsage(raw json.RawMessage) (bool, error) {
	if !given(raw) {
		return false, nil
	}
	var options struct {
		Usage *bool `json:"include_usage"`
	}
	if json.Unmarshal(raw, &options) != nil {
		return false, wrongParam("stream_options", "stream_options is not an object whose include_usage is a boolean")
	}
	return options.Usage != nil && *options.Usage, nil
}

// isOne reports whether n is 1, or not given.
func isOne(raw json.RawMessage) bool {
	if !given(raw) || string(raw) == "1" {
		return true
	}
	var n float64
	return json.Unmarshal(raw, &n) == nil && n == 1
}

// given reports whether a member is there and not null.
func given(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// onlyText refuses to be asked for speech, which is not kept.
func (r *chatRequest) onlyText() error {
	if given(r.modalities) {
		var modalities []string
		if json.Unmarshal(r.modalities, &modalities) != nil {
			return wrongParam("modalities", "modalities is not a list of texts")
		}
		for _, one := range modalities {
			if one != "text" {
				return wrongParam("modalities", "answers are text alone")
			}
		}
	}
	if given(r.audio) {
		return wrongParam("audio", "answers are text alone")
	}
	return nil
}

// readMessages looks at the form of the messages.
func readMessages(raw json.RawMessage) error {
	number, err := 0, error(nil)
	if eachItem(raw, func(message []byte) {
		var role, content json.RawMessage
		plain := eachMember(message, func(name, value []byte) {
			switch string(name) {
			case "role":
				role = value
			case "content":
				content = value
			}
		})
		if err == nil {
			err = readMessage(number, role, content)
		}
		if !plain {
			err = errNotPlain
		}
		number++
	}) && number > 0 && err == nil {
		return nil
	}
	var messages []map[string]json.RawMessage // not structs, in which case would not count
	if err := json.Unmarshal(raw, &messages); err != nil || len(messages) == 0 {
		return wrongParam("messages", "messages is not a list of messages with at least one")
	}
	for i, message := range messages {
		if err := readMessage(i, message["role"], message["content"]); err != nil {
			return err
		}
	}
	return nil
}

// errNotPlain says that a message is for encoding/json to read.
var errNotPlain = errors.New("a name has escapes")

// readMessage looks at the form of one message.
func readMessage(i int, role, content json.RawMessage) error {
	if name, err := takeText("role", role); err != nil || name == "" {
		return wrongParam(fmt.Sprintf("messages[%d].role", i), "a message has no role")
	}
	if first(content) == '[' && !isListOfObjects(content) {
		return wrongParam(fmt.Sprintf("messages[%d].content", i), "a message's parts do not have the form of any")
	}
	return nil
}

func isListOfObjects(raw json.RawMessage) bool {
	var parts []map[string]json.RawMessage
	return json.Unmarshal(raw, &parts) == nil
}
