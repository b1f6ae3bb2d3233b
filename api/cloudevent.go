package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"mythiccache/producers/event"
)

// cloudEvent is an event as it came: attributes, and data still as sent.
type cloudEvent struct {
	attributes map[string]string
	data       json.RawMessage
	err        error // what made it unreadable
	lenient    bool
}

// structuredEvent reads one event in the JSON format.
func structuredEvent(body []byte, lenient bool) (cloudEvent, error) {
	e := decodeEvent(body, lenient)
	if e.err != nil && !json.Valid(body) {
		return e, problem(kindBadRequest, "the body is not JSON")
	}
	return e, nil
}

// batchEvents reads the JSON batch format. What is wrong with an item is kept
// with it.
func batchEvents(body []byte, lenient bool) ([]cloudEvent, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, problem(kindBadRequest, "the body is not a JSON array of events")
	}
	if len(raw) > maxBatch {
		return nil, problem(kindTooLarge, fmt.Sprintf("the batch has %d events; at most %d are taken at once", len(raw), maxBatch))
	}
	events := make([]cloudEvent, len(raw))
	for i, item := range raw {
		events[i] = decodeEvent(item, lenient)
	}
	return events, nil
}

// decodeEvent reads the members of an event's JSON object. Their names are
// compared exactly, which decoding into a struct would not.
func decodeEvent(body []byte, lenient bool) cloudEvent {
	e := cloudEvent{attributes: map[string]string{}, lenient: lenient}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		e.err = errors.New("the event is not a JSON object")
		return e
	}
	for name, value := range members {
		switch {
		case name == "data":
			e.data = value
		case string(value) == "null": // as if it were not there (JSON format, 2.2)
		default:
			var text string
			if json.Unmarshal(value, &text) != nil {
				text = string(value) // an extension may be a number or a boolean
				if contextAttribute(name) {
					e.err = fmt.Errorf("%s is not a string", name)
				}
			}
			e.attributes[name] = text
		}
	}
	if encoded, ok := e.attributes["data_base64"]; ok {
		delete(e.attributes, "data_base64")
		data, err := base64.StdEncoding.DecodeString(encoded)
		switch {
		case e.data != nil:
			e.err = errors.New("data and data_base64 exclude one another")
		case err != nil:
			e.err = errors.New("data_base64 is not base64")
		}
		e.data = data
	}
	return e
}

// binaryEvent reads an event whose attributes are headers and whose data is the
// body.
func binaryEvent(h http.Header, body []byte) (cloudEvent, error) {
	e := cloudEvent{attributes: map[string]string{}}
	for name, values := range h {
		attribute, ok := strings.CutPrefix(name, "Ce-")
		if !ok {
			continue
		}
		attribute = strings.ToLower(attribute)
		if len(values) != 1 {
			return e, problem(kindBadRequest, "a ce- header comes more than once")
		}
		e.attributes[attribute] = headerValue(values[0])
	}
	if _, ok := e.attributes["traceparent"]; !ok && len(h.Values("Traceparent")) == 1 {
		e.attributes["traceparent"] = h.Get("Traceparent")
	}
	if media := h.Get("Content-Type"); media != "" {
		e.attributes["datacontenttype"] = media
	}
	e.data = body
	return e, nil
}

func contextAttribute(name string) bool {
	switch name {
	case "id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema", "traceparent":
		return true
	}
	return false
}

// event checks the attributes and makes an event of ours.
func (c cloudEvent) event() (event.Event, error) {
	e := event.Event{
		ID: c.attributes["id"], Type: c.attributes["type"], Source: c.attributes["source"],
		Subject: c.attributes["subject"], Traceparent: c.attributes["traceparent"],
	}
	if c.err != nil {
		return e, c.err
	}
	if c.lenient {
		c.fill(&e)
	}
	if e.ID == "" && !c.lenient {
		return e, errors.New("id is missing")
	}
	if version := c.attributes["specversion"]; version != "1.0" {
		return e, fmt.Errorf("specversion is %q, not 1.0", clip(version))
	}
	for _, required := range []struct{ name, value string }{{"source", e.Source}, {"type", e.Type}} {
		if required.value == "" {
			return e, fmt.Errorf("%s is missing", required.name)
		}
	}
	for _, ours := range []string{event.FieldView, event.FieldVersion} {
		if _, ok := c.attributes[ours]; ok {
			return e, fmt.Errorf("the attribute %s is the worker's own", ours)
		}
	}
	if text, ok := c.attributes["time"]; ok {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return e, errors.New("time is not of the form 2006-01-02T15:04:05Z (RFC 3339)")
		}
		e.Time = at.UTC()
	} else {
		e.Time = time.Now().UTC()
	}
	data, err := c.json()
	e.Data = data
	return e, err
}

// fill completes an event that was written by hand. Without an id it is called by
// its entry's, and each time that it comes it is another.
func (c cloudEvent) fill(e *event.Event) {
	if e.Source == "" {
		e.Source = "http"
	}
	if _, ok := c.attributes["specversion"]; !ok {
		c.attributes["specversion"] = "1.0"
	}
}

// json returns the data, which must be JSON, without white space.
func (c cloudEvent) json() (json.RawMessage, error) {
	if media := c.attributes["datacontenttype"]; media != "" && len(c.data) > 0 {
		kind, _, err := mime.ParseMediaType(media)
		if err != nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
			return nil, errors.New("data is not JSON by its datacontenttype")
		}
	}
	if len(c.data) == 0 || string(c.data) == "null" {
		return nil, nil
	}
	if depth := nesting(c.data); depth > maxDepth {
		return nil, fmt.Errorf("data is nested %d deep; at most %d levels are taken", depth, maxDepth)
	}
	if !utf8.Valid(c.data) {
		return nil, errors.New("data is not UTF-8")
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, c.data); err != nil {
		return nil, errors.New("data is not JSON")
	}
	return compact.Bytes(), nil
}
