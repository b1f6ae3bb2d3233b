package streams

import (
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// The events are of one table and change one view.
const (
	topic    = "books"
	framed   = "framed" // the same in the format of watermill-redisstream, which is all that it reads
	viewName = "user_books"
)

// eventBytes is about how long the values of an event are, together.
const eventBytes = 300

// change is an event of a table as the relay writes it, filled up to eventBytes.
func change(number int, key string) event.Event {
	e := event.Event{
		ID: fmt.Sprintf("0195e1a0-0000-7000-8000-%012d", number), Type: event.TableChanged(topic), Source: "mythic",
		Subject: key, View: viewName, Time: time.UnixMilli(1_800_000_000_000).UTC(), Version: versionOf(number),
	}
	size := len(`{"filler":""}`)
	for i, field := range e.Fields() {
		if i%2 == 1 {
			size += len(field)
		}
	}
	e.Data = fmt.Appendf(nil, `{"filler":%q}`, strings.Repeat("x", max(eventBytes-size, 0)))
	return e
}

// changes are the messages of n events, from a number on, of so many keys in turn.
func changes(from, n, keys int) []*message.Message {
	messages := make([]*message.Message, n)
	for i := range messages {
		number := from + i
		messages[i] = stream.FromEvent(change(number, keyOf(number%keys)))
	}
	return messages
}

func keyOf(n int) string { return fmt.Sprintf("user_%08d", n) }

// versionOf returns the version of the snapshot that a number stands for.
func versionOf(number int) string {
	return fmt.Sprintf("%012x%016x%08x", 1, number, 0)
}
