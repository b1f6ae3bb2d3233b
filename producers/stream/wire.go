package stream

import (
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/producers/event"
)

// Wire is a format of stream entries. Both are always read.
type Wire int

const (
	// WirePlain has the fields of package event, as a person would write them.
	WirePlain Wire = iota
	// WireWatermill is the format of watermill-redisstream.
	WireWatermill
)

// Entry says where a message came from.
type Entry struct {
	Topic      string
	ID         string    // of the stream entry
	Added      time.Time // the time in that id
	Deliveries int       // this one included
}

// EntryOf returns the stream entry of a message that a Consumer or a Subscriber
// delivered, false for any other message.
func EntryOf(m *message.Message) (Entry, bool) { return Entry{}, false }

// FromEvent returns the event as a message: the id as its UUID, the data as its
// payload, and everything else as metadata.
func FromEvent(e event.Event) *message.Message { return message.NewMessage(e.ID, nil) }

// EventOf returns the event of a message. Where they are absent, id and time are
// those of the stream entry. The error wraps event.ErrMalformed; a handler that
// returns it makes the event a dead letter at once.
func EventOf(m *message.Message) (event.Event, error) { return event.Event{}, event.ErrMalformed }
