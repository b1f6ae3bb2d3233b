package api

import (
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
