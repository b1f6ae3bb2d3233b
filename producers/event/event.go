package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The types that the program itself knows. Table changes are named
// <table>.changed and are formed with TableChanged.
const (
	FillRequested  = "fill.requested" // subject: the key; view: its view
	RunStarted     = "run.started"    // subject of all run events: the run's id
	RunProgress    = "run.progress"
	RunFinished    = "run.finished"
	RunFailed      = "run.failed"
	AIRequested    = "ai.requested"
	AIAnswered     = "ai.answered"
	AIForget       = "ai.forget"
	SessionCreated = "session.created"
	SessionRevoked = "session.revoked"
)

// Topics that the program itself knows. The topic of a table's events is the
// table's name.
const (
	TopicFill    = "fill"
	TopicRun     = "run"
	TopicAI      = "ai"
	TopicSession = "session"
)

// Limits of an event, in bytes. A longer one is refused where it comes in.
const (
	MaxName = 512     // of type, subject, view, source, id and traceparent, each
	MaxData = 1 << 20 // of data
)

// Event says that something happened. Only Type is required; see Validate.
type Event struct {
	ID          string          // unique with Source; the stream's own id where empty
	Type        string          // <topic>.<what happened>
	Source      string          // who says so
	Subject     string          // what it happened to; of a table event, the view's key
	Time        time.Time       // when it happened; of millisecond use, kept in nanoseconds
	View        string          // the view that a table event or a fill is about
	Data        json.RawMessage // JSON, may be empty
	Version     string          // of a table event: the snapshot version it was seen at
	Traceparent string          // W3C Trace Context
}

// ErrMalformed is wrapped by every error of Parse and Validate.
var ErrMalformed = errors.New("malformed event")

// IsRunEvent reports whether the type is one of those that a run's document is
// folded from.
func IsRunEvent(eventType string) bool {
	switch eventType {
	case RunStarted, RunProgress, RunFinished, RunFailed:
		return true
	}
	return false
}

// TableChanged returns the type of the events of one table.
func TableChanged(table string) string { return table + ".changed" }

// TopicOf returns the part of an event's type before its first dot, which names
// the stream that the event travels in.
func TopicOf(eventType string) string {
	topic, _, _ := strings.Cut(eventType, ".")
	return topic
}

// Topic returns the topic of the event.
func (e Event) Topic() string { return TopicOf(e.Type) }

// subjectless are the types that mean something without a subject.
var subjectless = []string{AIRequested, AIAnswered, AIForget, SessionCreated, SessionRevoked}

// taken are names of what else lives beside the streams (see stream.Keys): an
// event of such a topic would stop the relay, whose position is no stream.
var taken = []string{"dead", "parked", "position"}

// Validate reports, wrapping ErrMalformed, what makes the event unfit to travel:
// no type, none or a taken topic in it, a missing subject (table events without one
// concern their whole view and must name it), a field that is too long or not
// UTF-8, data that is not JSON.
func (e Event) Validate() error {
	topic, what, ok := strings.Cut(e.Type, ".")
	if !ok || topic == "" || what == "" {
		return fmt.Errorf("%w: type %q is not of the form <topic>.<what happened>", ErrMalformed, clip(e.Type))
	}
	for _, field := range []struct{ name, value string }{
		{"type", e.Type}, {"id", e.ID}, {"source", e.Source}, {"subject", e.Subject},
		{"view", e.View}, {"version", e.Version}, {"traceparent", e.Traceparent},
	} {
		if len(field.value) > MaxName {
			return fmt.Errorf("%w: %s has %d bytes; at most %d are allowed", ErrMalformed, field.name, len(field.value), MaxName)
		}
		if !utf8.ValidString(field.value) || strings.ContainsRune(field.value, 0) {
			return fmt.Errorf("%w: %s is not text in UTF-8", ErrMalformed, field.name)
		}
	}
	if strings.ContainsAny(topic, ":{} ") {
		return fmt.Errorf("%w: topic %q holds a colon, a brace or a space", ErrMalformed, topic)
	}
	if slices.Contains(taken, topic) {
		return fmt.Errorf("%w: topic %q is the name of something else beside the streams", ErrMalformed, topic)
	}
	if e.Subject == "" && e.View == "" && !slices.Contains(subjectless, e.Type) {
		return fmt.Errorf("%w: %s needs a subject", ErrMalformed, e.Type)
	}
	if e.Type == FillRequested && (e.Subject == "" || e.View == "") {
		return fmt.Errorf("%w: %s needs a view and a subject", ErrMalformed, e.Type)
	}
	if len(e.Data) > MaxData {
		return fmt.Errorf("%w: data has %d bytes; at most %d are allowed", ErrMalformed, len(e.Data), MaxData)
	}
	if len(e.Data) > 0 && !json.Valid(e.Data) {
		return fmt.Errorf("%w: data is not JSON", ErrMalformed)
	}
	return nil
}

// clip shortens what an error quotes.
func clip(s string) string {
	if len(s) <= 64 {
		return s
	}
	return strings.ToValidUTF8(s[:64], "") + "…"
}
