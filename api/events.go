package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"mythiccache/producers/event"
)

// Limits of what is sent to /events. Those of one event are event's own.
const (
	maxEventsBody = 4 << 20 // bytes
	maxBatch      = 1000    // events
	maxDepth      = 64      // of nesting in JSON
)

// appendTimeout bounds how long a batch may take to get to Redis.
const appendTimeout = 5 * time.Second

// ItemError says what is wrong with one event of a request.
type ItemError struct {
	Index  int    `json:"index"`        // from 0, in the order sent
	ID     string `json:"id,omitempty"` // the event's own, where it has one
	Detail string `json:"detail"`
}

// Accepted is an event that Redis has.
type Accepted struct {
	Index     int    `json:"index"`               // from 0, in the order sent
	ID        string `json:"id"`                  // the event's own; the entry's where it named none
	Entry     string `json:"entry"`               // of its stream
	Duplicate bool   `json:"duplicate,omitempty"` // an event of this source and id was there before
}

func (s *Server) eventRoutes() []route {
	return []route{{
		method: http.MethodPost, path: "/events", access: app,
		operation: "postEvents", handle: s.postEvents,
	}}
}

// postEvents appends events to their streams: all of a request or, where one of
// them is wrong, none.
func (s *Server) postEvents(x *exchange) error {
	items, err := readEvents(x)
	if err != nil {
		return err
	}
	var wrong []ItemError
	events := make([]event.Event, len(items))
	for i, item := range items {
		e, err := item.event()
		if err == nil {
			err = s.accepts(e)
		}
		if err != nil {
			wrong = append(wrong, ItemError{Index: i, ID: clip(e.ID), Detail: err.Error()})
		}
		events[i] = e
	}
	if len(wrong) > 0 {
		p := problem(kindEvents, fmt.Sprintf("%d of %d events are wrong; none was taken", len(wrong), len(items)))
		p.Errors = wrong
		return p
	}
	return s.append(x, events)
}

// append answers 202 once Redis has the events. One that was sent before is accepted
// as the one that is there: its sender did not hear of it, or it asks to make sure.
func (s *Server) append(x *exchange, events []event.Event) error {
	if len(events) == 0 {
		return x.json(http.StatusAccepted, map[string][]Accepted{"accepted": {}})
	}
	ctx, cancel := context.WithTimeout(x.request.Context(), appendTimeout)
	defer cancel()
	begun := time.Now()
	ids, before, err := s.publisher.AppendOnce(ctx, events...)
	x.redis += time.Since(begun)
	accepted := acceptedOf(events, ids, before)
	if err != nil {
		p := x.cacheAway(err)
		p.Detail = fmt.Sprintf("Redis has taken %d of %d events for certain; send all again: what is there under its source and id is not taken twice", len(accepted), len(events))
		p.Accepted = accepted
		return p
	}
	s.back()
	return x.json(http.StatusAccepted, map[string][]Accepted{"accepted": accepted})
}

// acceptedOf lists the events that Redis has.
func acceptedOf(events []event.Event, ids []string, before []bool) []Accepted {
	accepted := []Accepted{}
	for i, entry := range ids {
		if entry == "" || i >= len(events) {
			continue
		}
		a := Accepted{Index: i, ID: events[i].ID, Entry: entry, Duplicate: i < len(before) && before[i]}
		if a.ID == "" {
			a.ID = entry // as whoever reads the entry calls it
		}
		accepted = append(accepted, a)
	}
	return accepted
}

// accepts refuses events that nobody would consume, and those that only the
// worker itself may make.
func (s *Server) accepts(e event.Event) error {
	if err := e.Validate(); err != nil {
		return err
	}
	switch topic := e.Topic(); {
	case topic == event.TopicRun && !event.IsRunEvent(e.Type):
		return fmt.Errorf("a run has no event of type %q", clip(e.Type))
	case topic == event.TopicSession:
		return s.acceptsSession(e)
	case topic == event.TopicRun, topic == event.TopicAI:
		return nil
	case len(s.views.ForEvent(e.Type)) > 0:
		return nil
	case slices.Contains(s.views.EventTopics(), topic):
		return fmt.Errorf("no view names the type %q among its events", clip(e.Type))
	default:
		return fmt.Errorf("nobody consumes the topic %q of type %q", clip(topic), clip(e.Type))
	}
}

// acceptsSession refuses what is about sessions and would change none, and what holds a
// token: streams and dead letters are read by many.
func (s *Server) acceptsSession(e event.Event) error {
	switch {
	case e.Type == event.SessionCreated, e.Type == event.SessionRevoked, len(s.views.ForEvent(e.Type)) > 0:
	default:
		return fmt.Errorf("a session has no event of type %q", clip(e.Type))
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(e.Data, &members) != nil {
		return nil //nolint:nilerr // without members; what else is wrong with it, its consumer says
	}
	for name := range members {
		if strings.EqualFold(name, "token") {
			return fmt.Errorf("data has the member %q: an event names a token by its sha256 and never holds it", clip(name))
		}
	}
	return nil
}

// readEvents reads the body in whichever of CloudEvents' modes it comes.
func readEvents(x *exchange) ([]cloudEvent, error) {
	mode, err := contentMode(x.request)
	if err != nil {
		return nil, err
	}
	body, err := readBody(x, maxEventsBody)
	if err != nil {
		return nil, err
	}
	if mode == modeBinary {
		e, err := binaryEvent(x.request.Header, body)
		return []cloudEvent{e}, err
	}
	if depth := nesting(body); depth > maxDepth {
		return nil, problem(kindBadRequest, fmt.Sprintf("the JSON is nested %d deep; at most %d levels are read", depth, maxDepth))
	}
	switch mode {
	case modeBatch:
		return batchEvents(body, false)
	case modeGuess:
		if first(body) == '[' {
			return batchEvents(body, true)
		}
	}
	e, err := structuredEvent(body, mode == modeGuess)
	return []cloudEvent{e}, err
}
