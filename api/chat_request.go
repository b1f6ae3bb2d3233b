package api

import (
	"encoding/json"
	"fmt"
	"strings"

	"mythiccache/cache"
)

// chat is a request for a chat completion.
type chat struct {
	question
	stream bool
	usage  bool // in the stream, as its last chunk
}

// chatCaller lets in users, and the app for itself or on a user's behalf.
func chatCaller(x *exchange) error {
	if x.caller.user == "" && !x.caller.app {
		return unauthorized("", "show a user's token or the app's as the API key")
	}
	return nil
}

// read reads a request for a completion. What cannot be served rightly is refused; what
// only the model can judge is left to it.
func (d *chatDesk) read(x *exchange) (chat, error) {
	if err := chatCaller(x); err != nil {
		return chat{}, err
	}
	body, err := readQuestion(x)
	if err != nil {
		return chat{}, err
	}
	var m chatMembers
	if err := m.read(body); err != nil {
		return chat{}, err
	}
	c := chat{stream: m.stream, usage: m.usage}
	scope, err := chatScope(x, m.user)
	if err != nil {
		return chat{}, err
	}
	c.question, err = d.form(body, scope, hasDirective(x.request.Header["Cache-Control"], "no-store"))
	return c, err
}

// chatScope returns whose the answer will be. The app may name a user in the request's
// own field or in the header; the field of anybody else counts for nothing.
func chatScope(x *exchange, user string) (string, error) {
	if !x.caller.app {
		return x.caller.user, nil
	}
	switch {
	case user == "":
	case !nameable(user):
		return "", wrongParam("user", "user is not the name of a user")
	case x.caller.user != "" && x.caller.user != user:
		return "", wrongParam("user", "user and X-User-Id name two users")
	default:
		x.caller = appCaller(user)
	}
	if x.caller.user == "" {
		return cache.AppScope, nil
	}
	return x.caller.user, nil
}

// chatMembers are the members of a request that are looked at here.
type chatMembers struct {
	stream, usage bool
	user          string
}

// read takes the members from a body. Its errors are problems that quote nothing.
func (m *chatMembers) read(body []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return problem(kindBadRequest, "the body is not a JSON object")
	}
	var options struct {
		Usage *bool `json:"include_usage"`
	}
	stream, hasOptions := false, given(members["stream_options"])
	for _, one := range []struct {
		name string
		into any
		form string
	}{
		{"stream", &stream, "a boolean"},
		{"stream_options", &options, "an object whose include_usage is a boolean"},
		{"user", &m.user, "a text"},
		{"model", new(string), "a text"},
	} {
		if err := take(members, one.name, one.into, one.form); err != nil {
			return err
		}
	}
	m.stream, m.usage = stream, options.Usage != nil && *options.Usage
	if hasOptions && !stream {
		return wrongParam("stream_options", "stream_options are for streams: set stream to true")
	}
	if _, legacy := members["prompt"]; legacy {
		return wrongParam("prompt", "a chat completion has messages, not a prompt")
	}
	n := 1.0
	if err := take(members, "n", &n, "a number"); err != nil || n != 1 {
		return wrongParam("n", "n is not 1; an answer has one choice")
	}
	if err := onlyText(members); err != nil {
		return err
	}
	return readMessages(members["messages"])
}

// take reads a member of a form where it is given.
func take(members map[string]json.RawMessage, name string, into any, form string) error {
	if raw := members[name]; given(raw) && json.Unmarshal(raw, into) != nil {
		return wrongParam(name, name+" is not "+form)
	}
	return nil
}

// given reports whether a member is there and not null.
func given(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// onlyText refuses to be asked for speech, which is not kept.
func onlyText(members map[string]json.RawMessage) error {
	var modalities []string
	if err := take(members, "modalities", &modalities, "a list of texts"); err != nil {
		return err
	}
	for _, one := range modalities {
		if one != "text" {
			return wrongParam("modalities", "answers are text alone")
		}
	}
	if given(members["audio"]) {
		return wrongParam("audio", "answers are text alone")
	}
	return nil
}

// readMessages looks at the form of the messages.
func readMessages(raw json.RawMessage) error {
	var messages []map[string]json.RawMessage // not structs, in which case would not count
	if err := json.Unmarshal(raw, &messages); err != nil || len(messages) == 0 {
		return wrongParam("messages", "messages is not a list of messages with at least one")
	}
	for i, message := range messages {
		var role string
		if err := json.Unmarshal(message["role"], &role); err != nil || role == "" {
			return wrongParam(fmt.Sprintf("messages[%d].role", i), "a message has no role")
		}
		var parts []map[string]json.RawMessage
		if content := message["content"]; first(content) == '[' && json.Unmarshal(content, &parts) != nil {
			return wrongParam(fmt.Sprintf("messages[%d].content", i), "a message's parts do not have the form of any")
		}
	}
	return nil
}

// hasDirective reports whether Cache-Control names a directive.
func hasDirective(values []string, name string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			directive, _, _ := strings.Cut(part, "=")
			if strings.EqualFold(strings.TrimSpace(directive), name) {
				return true
			}
		}
	}
	return false
}
