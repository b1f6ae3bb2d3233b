package event

import (
	"encoding/json"
	"fmt"
	"time"
)

// The names of the fields of a stream entry.
const (
	FieldID          = "id"
	FieldType        = "type"
	FieldSource      = "source"
	FieldSubject     = "subject"
	FieldTime        = "time"
	FieldView        = "view"
	FieldData        = "data"
	FieldVersion     = "version"
	FieldTraceparent = "traceparent"
)

// Fields returns the event as the alternating names and values of a stream
// entry. What is empty is left out.
func (e Event) Fields() []string {
	fields := make([]string, 0, 18)
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, name, value)
		}
	}
	add(FieldID, e.ID)
	add(FieldType, e.Type)
	add(FieldSource, e.Source)
	add(FieldSubject, e.Subject)
	if !e.Time.IsZero() {
		add(FieldTime, e.Time.UTC().Format(time.RFC3339Nano))
	}
	add(FieldView, e.View)
	add(FieldData, string(e.Data))
	add(FieldVersion, e.Version)
	add(FieldTraceparent, e.Traceparent)
	return fields
}

// Parse reads a stream entry through get, which returns a field's value or "".
// It returns an error that wraps ErrMalformed where a time cannot be read or
// where Validate refuses the event; the event is then as far as it was read.
func Parse(get func(name string) string) (Event, error) {
	e := Event{
		ID:          get(FieldID),
		Type:        get(FieldType),
		Source:      get(FieldSource),
		Subject:     get(FieldSubject),
		View:        get(FieldView),
		Version:     get(FieldVersion),
		Traceparent: get(FieldTraceparent),
	}
	if data := get(FieldData); data != "" {
		e.Data = json.RawMessage(data)
	}
	if text := get(FieldTime); text != "" {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return e, fmt.Errorf("%w: time %q is not of the form 2006-01-02T15:04:05Z (RFC 3339)", ErrMalformed, clip(text))
		}
		e.Time = at.UTC()
	}
	return e, e.Validate()
}
