package api

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"mythiccache/cache"
	"mythiccache/producers/event"
)

// maxQuestion bounds the body of a request for an answer, in bytes. What it
// becomes travels in one event, with the scope beside it.
const maxQuestion = event.MaxData - 8<<10

// question is what somebody asks of a model.
type question struct {
	cache.Question
	key    string // of its answer
	scope  string // whose that is
	shared bool   // everybody's
	asker  string // the scope of who asks, whosever the answer is
	nonce  string // it is asked once: the answer is given to nobody else, and not kept
}

// readQuestion reads the body of a request for an answer.
func readQuestion(x *exchange) ([]byte, error) {
	body, err := readBody(x, maxQuestion)
	if err != nil {
		return nil, err
	}
	if depth := nesting(body); depth > maxDepth {
		return nil, problem(kindBadRequest, fmt.Sprintf("the JSON is nested %d deep; at most %d levels are read", depth, maxDepth))
	}
	return body, nil
}

// form makes a question of a request. Where the operator shares the answers of its model,
// the scope is everybody's.
func (d *answerDesk) form(body []byte, scope string, once bool) (q question, err error) {
	q = question{scope: scope, asker: scope}
	if q.Question, err = d.server.o.Models.Question(body); err != nil {
		return question{}, badQuestion(err)
	}
	if once || isFleeting(q.Request) {
		q.nonce = rand.Text()
		q.key, err = q.OneTimeKey(d.server.o.Provider, scope, q.nonce)
	} else {
		if q.shared = d.server.o.Models.Shared(q.Model); q.shared {
			q.scope = cache.SharedScope
		}
		q.key, err = q.Key(d.server.o.Provider, q.scope)
	}
	if err != nil {
		return question{}, badQuestion(err)
	}
	return q, nil
}

// event is what has a worker answer the question.
func (d *answerDesk) event(q *question) (event.Event, error) {
	asked := struct {
		Scope   string          `json:"scope"`
		Asker   string          `json:"asker,omitempty"`
		Awaits  string          `json:"awaits"`
		NoStore bool            `json:"no_store,omitempty"`
		Nonce   string          `json:"nonce,omitempty"`
		Request json.RawMessage `json:"request"`
	}{Scope: q.scope, Awaits: q.key, NoStore: q.nonce != "", Nonce: q.nonce, Request: q.Request}
	if q.shared {
		asked.Asker = d.askers.name(q.asker)
	}
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false) // a prompt may be as long as an event, and is not to grow
	if err := encoder.Encode(asked); err != nil {
		return event.Event{}, err
	}
	if data.Len() > event.MaxData {
		return event.Event{}, problem(kindTooLarge, fmt.Sprintf("the question is longer than %d bytes", maxQuestion))
	}
	e := event.Event{Type: event.AIRequested, Source: "api", Data: bytes.TrimSpace(data.Bytes())}
	if validText(q.scope) { // the scopes that are nobody's are no subjects
		e.Subject = q.scope
	}
	return e, nil
}

// badQuestion makes a problem of what cache says about a request. Its sentences
// quote nothing of it.
func badQuestion(err error) error {
	if errors.Is(err, cache.ErrModel) {
		return unknownModel()
	}
	detail, ok := strings.CutPrefix(err.Error(), cache.ErrRequest.Error()+": ")
	if !ok || !errors.Is(err, cache.ErrRequest) {
		return err
	}
	return problem(kindBadRequest, detail)
}

// own returns an entry as its reader's: one that is shared is everybody's.
func (d *answerDesk) own(e cache.Entry) cache.Entry {
	if e.Owner == cache.SharedScope && d.server.o.Models.Sharing() {
		e.Owned = false
	}
	return e
}
