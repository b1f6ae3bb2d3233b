package stream

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/producers/event"
)

// Wire is a format of stream entries. Both are always read.
type Wire int

const (
	// WirePlain has the fields of package event, as a person would write them.
	// A message of no event has its UUID in id, its payload in data, and its
	// metadata in fields of their own names.
	WirePlain Wire = iota
	// WireWatermill is the format of watermill-redisstream.
	WireWatermill
)

// FromEvent returns the event as a message: the id as its UUID, the data as its
// payload, and everything else as metadata.
func FromEvent(e event.Event) *message.Message {
	m := message.NewMessage(e.ID, message.Payload(e.Data))
	fields := e.Fields()
	for i := 0; i < len(fields); i += 2 {
		if name := fields[i]; name != event.FieldID && name != event.FieldData {
			m.Metadata[name] = fields[i+1]
		}
	}
	return m
}

// EventOf returns the event of a message. Where they are absent, id and time are
// those of the stream entry. The error wraps event.ErrMalformed; a handler that
// returns it makes the event a dead letter at once.
func EventOf(m *message.Message) (event.Event, error) {
	d := deliveryOf(m)
	if d != nil && d.parsed {
		return d.event, d.malformed
	}
	return parse(m, d)
}

// parse reads the event of a message; d is nil where it is of no stream.
func parse(m *message.Message, d *delivery) (event.Event, error) {
	e, err := event.Parse(func(name string) string {
		switch name {
		case event.FieldID:
			return m.UUID
		case event.FieldData:
			return string(m.Payload)
		default:
			return m.Metadata[name]
		}
	})
	if d != nil {
		if e.ID == "" {
			e.ID = d.id
		}
		if e.Time.IsZero() {
			e.Time = addedAt(d.id)
		}
	}
	return e, err
}

// decode makes a message of a stream entry in either format.
func decode(id string, values map[string]any) (m *message.Message, err error) {
	if _, ok := values[redisstream.UUIDHeaderKey]; ok {
		// Its decoder of msgpack is old, and an entry is whatever anybody wrote.
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("metadata is not msgpack: %v", r)
			}
		}()
		m, err = redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(values)
		if err == nil && m.Metadata == nil {
			m.Metadata = message.Metadata{}
		}
		return m, err
	}
	m = message.NewMessage(id, nil)
	for name, value := range values {
		text, ok := value.(string)
		if !ok {
			return nil, errors.New("a field is not a string")
		}
		switch name {
		case event.FieldID:
			m.UUID = text
		case event.FieldData:
			m.Payload = message.Payload(text)
		default:
			m.Metadata[name] = text
		}
	}
	return m, nil
}

// encode makes the alternating names and values of a stream entry. A message
// that has no plain form, since its metadata use a name that has a meaning of
// its own, is written in watermill's.
func encode(topic string, m *message.Message, wire Wire) ([]any, error) {
	if wire == WirePlain && plain(m) {
		fields := make([]any, 0, 4+2*len(m.Metadata))
		if m.UUID != "" {
			fields = append(fields, event.FieldID, m.UUID)
		}
		for name, value := range m.Metadata {
			fields = append(fields, name, value)
		}
		if len(m.Payload) > 0 || len(fields) == 0 {
			fields = append(fields, event.FieldData, []byte(m.Payload))
		}
		return fields, nil
	}
	values, err := redisstream.DefaultMarshallerUnmarshaller{}.Marshal(topic, m)
	if err != nil {
		return nil, fmt.Errorf("encode message %s: %w", m.UUID, err)
	}
	fields := make([]any, 0, 2*len(values))
	for name, value := range values {
		fields = append(fields, name, value)
	}
	return fields, nil
}

func plain(m *message.Message) bool {
	for _, name := range []string{event.FieldID, event.FieldData, redisstream.UUIDHeaderKey} {
		if _, taken := m.Metadata[name]; taken {
			return false
		}
	}
	return true
}

// addedAt is the time in a stream entry's id, <Unix milliseconds>-<number>; the
// zero time where there is none.
func addedAt(id string) time.Time {
	ms, _, _ := strings.Cut(id, "-")
	var n int64
	for _, c := range []byte(ms) {
		if c < '0' || c > '9' || n > 1<<52 {
			return time.Time{}
		}
		n = n*10 + int64(c-'0')
	}
	return time.UnixMilli(n).UTC()
}
