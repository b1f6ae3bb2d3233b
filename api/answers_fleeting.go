package api

import (
	"bytes"
	"encoding/json"
	"iter"
	"strings"
)

// isFleeting reports whether a request in canonical form asks about what may be another
// thing tomorrow. A picture or a recording that the request holds is part of the
// question; one behind an address is not, so an answer about it is not kept.
func isFleeting(request []byte) bool {
	if !bytes.Contains(request, []byte(`url":`)) {
		return false // as most do not
	}
	var asked map[string]json.RawMessage
	if json.Unmarshal(request, &asked) != nil {
		return false // the model will refuse it
	}
	for message := range objects(asked["messages"]) {
		for part := range objects(message["content"]) {
			if hasAddress(part, true) {
				return true
			}
		}
	}
	return false
}

// objects are those of a list's elements that are objects. Whatever stands beside them, the
// model is to judge.
func objects(raw json.RawMessage) iter.Seq[map[string]json.RawMessage] {
	return func(yield func(map[string]json.RawMessage) bool) {
		var list []json.RawMessage
		if first(raw) != '[' || json.Unmarshal(raw, &list) != nil {
			return
		}
		for _, one := range list {
			var object map[string]json.RawMessage
			if first(one) == '{' && json.Unmarshal(one, &object) == nil && !yield(object) {
				return
			}
		}
	}
}

// hasAddress reports whether a member, or one of a member of these, is an address that
// does not hold what it names.
func hasAddress(part map[string]json.RawMessage, deeper bool) bool {
	for name, value := range part {
		var address string
		var inner map[string]json.RawMessage
		switch {
		case name == "url" || strings.HasSuffix(name, "_url") && first(value) == '"':
			if json.Unmarshal(value, &address) == nil && !strings.HasPrefix(strings.ToLower(address), "data:") {
				return true
			}
		case deeper && first(value) == '{' && json.Unmarshal(value, &inner) == nil:
			if hasAddress(inner, false) {
				return true
			}
		}
	}
	return false
}
