package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/producers/event"
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
func EntryOf(m *message.Message) (Entry, bool) {
	d := deliveryOf(m)
	if d == nil {
		return Entry{}, false
	}
	return Entry{Topic: d.topic, ID: d.id, Added: addedAt(d.id), Deliveries: d.deliveries}, true
}

// delivery is one stream entry on its way through a handler.
type delivery struct {
	topic, id  string
	fields     fields
	kind       string    // type of the event, where it has one
	deliveries int       // this one included
	parked     bool      // it comes from the parked set; its stream entry is acknowledged
	first      time.Time // when it first failed

	message   *message.Message
	context   deliveryContext // of the message
	event     event.Event
	malformed error // why event or message could not be read
	parsed    bool  // event and malformed are set

	failure atomic.Pointer[error] // what RecordFailure saw
	touched time.Time             // last sign of life in Redis; guarded by flight

	settling bool // its answer is being written; guarded by flight

	over  chan struct{} // closed when it is no longer in flight; nil where nobody waits for that
	ended sync.Once
}

// end tells who waits that the delivery is no longer in flight.
func (d *delivery) end() {
	if d.over != nil {
		d.ended.Do(func() { close(d.over) })
	}
}

func (d *delivery) ref() ref { return ref{topic: d.topic, id: d.id} }

type deliveryKey struct{}

func deliveryOf(m *message.Message) *delivery {
	d, _ := m.Context().Value(deliveryKey{}).(*delivery)
	return d
}

// deliveryContext is a context from which a delivery can be had. It is a part of
// the delivery, and so costs nothing of its own.
type deliveryContext struct {
	context.Context //nolint:containedctx // it is one
	of              *delivery
}

// Value implements context.Context.
func (c *deliveryContext) Value(key any) any {
	if key == (deliveryKey{}) {
		return c.of
	}
	return c.Context.Value(key)
}

// attach gives the message a context from which its delivery can be had.
func (d *delivery) attach(ctx context.Context) {
	d.context = deliveryContext{ctx, d}
	d.message.SetContext(&d.context) //nolint:contextcheck // it holds ctx
}

// parcel is what is kept of an event that waits to be tried again.
type parcel struct {
	First  time.Time `json:"first"`
	Reason string    `json:"reason"`
	Fields [][]byte  `json:"fields"` // alternating names and values: bytes, since they may be anything
}

func (d *delivery) pack(first time.Time, reason string) []byte {
	p := parcel{First: first, Reason: reason, Fields: make([][]byte, len(d.fields))}
	for i, text := range d.fields {
		p.Fields[i] = []byte(text)
	}
	packed, err := json.Marshal(p)
	if err != nil { // a time beyond the year 9999, which no clock here gives
		p.First = time.Time{}
		packed, _ = json.Marshal(p) //nolint:errchkjson // bytes, a text and that time are all fine
	}
	return packed
}

func unpack(topic, id string, deliveries int, packed []byte) (*delivery, error) {
	var p parcel
	d := &delivery{topic: topic, id: id, deliveries: deliveries, parked: true}
	if err := json.Unmarshal(packed, &p); err != nil {
		d.fields = fields{"parcel", string(packed)}
		return d, fmt.Errorf("read parked event: %w", err)
	}
	d.first = p.First
	d.fields = make(fields, len(p.Fields)&^1)
	for i := range d.fields {
		d.fields[i] = string(p.Fields[i])
	}
	return d, nil
}

// reasonOf is an error's text, fit for a field that people read.
func reasonOf(err error) string {
	const most = 1 << 10
	text := err.Error()
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}
