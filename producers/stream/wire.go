package stream

import (
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
func decode(id string, f fields) (*message.Message, error) {
	if uuid, ok := f.get(redisstream.UUIDHeaderKey); ok {
		return decodeWatermill(uuid, f)
	}
	m := message.NewMessage(id, nil)
	for i := 0; i+1 < len(f); i += 2 {
		switch name, text := f[i], f[i+1]; name {
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

// The fields beside the UUID in watermill-redisstream's format, which does not
// export their names.
const (
	watermillPayload  = "payload"
	watermillMetadata = "metadata"
)

func decodeWatermill(uuid string, f fields) (m *message.Message, err error) {
	packed, _ := f.get(watermillMetadata)
	if metadata, ok := readMetadata(packed); ok || packed == "" {
		payload, _ := f.get(watermillPayload)
		m = message.NewMessage(uuid, message.Payload(payload))
		if ok {
			m.Metadata = metadata
		}
		return m, nil
	}
	// Its decoder of msgpack is old, and an entry is whatever anybody wrote.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("metadata is not msgpack: %v", r)
		}
	}()
	values := make(map[string]any, len(f)/2)
	for i := 0; i+1 < len(f); i += 2 {
		values[f[i]] = f[i+1]
	}
	m, err = redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(values)
	if err == nil && m.Metadata == nil {
		m.Metadata = message.Metadata{}
	}
	return m, err
}

// encode makes the alternating names and values of a stream entry. A message
// that has no plain form, since its metadata use a name that has a meaning of
// its own, is written in watermill's.
func encode(m *message.Message, wire Wire) ([]any, error) {
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
	if m.Metadata[redisstream.UUIDHeaderKey] != "" {
		return nil, fmt.Errorf("encode message %s: its metadata name %s, which is reserved", m.UUID, redisstream.UUIDHeaderKey)
	}
	var packed []byte
	if len(m.Metadata) > 0 {
		packed = packMetadata(m.Metadata)
	}
	return []any{redisstream.UUIDHeaderKey, m.UUID, watermillMetadata, packed, watermillPayload, []byte(m.Payload)}, nil
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
