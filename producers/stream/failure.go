package stream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/producers/event"
)

var (
	// ErrReject makes the event a dead letter at once, where a handler's error
	// wraps it: trying again would change nothing.
	ErrReject = errors.New("event rejected")

	// ErrPause says, where a handler's error wraps it, that the event is not at
	// fault (a database is away, say): it comes back and the delivery does not
	// count. While nothing but pauses is heard, less is read.
	ErrPause = errors.New("handler paused")

	// ErrLater is an ErrPause that says nothing of other events: this one has to wait
	// for its turn, and comes back in half a second or so. Reading goes on.
	ErrLater = fmt.Errorf("%w for this event", ErrPause)
)

// later is an ErrLater that says when.
type later struct{ after time.Duration }

func (l *later) Error() string { return ErrLater.Error() }
func (l *later) Unwrap() error { return ErrLater }

// LaterBy is ErrLater for an event that has nothing to come back for before that time
// is over; it is spread over half as long again.
func LaterBy(d time.Duration) error { return &later{after: d} }

// backIn is how long an event stays away that has to wait for its turn.
func backIn(err error) time.Duration {
	var l *later
	if errors.As(err, &l) && l.after > laterLeast {
		after := min(l.after, parkMost)
		return after + rand.N(max(after/2, laterLeast))
	}
	return laterLeast + rand.N(laterLeast)
}

// inSteadError is a failure that says what stays of its event.
type inSteadError struct {
	error
	fields []string
}

func (f *inSteadError) Unwrap() error { return f.error }

// InStead is a handler's error that has the event's dead letter, should this have been
// its last delivery, hold these fields, names and values in turn, in place of the
// event's own: for what is not to rest where nobody removes it. Such a letter cannot be
// replayed.
func InStead(err error, fields ...string) error { return &inSteadError{error: err, fields: fields} }

// errNacked is the reason of a Nack for which nobody gave one.
var errNacked = errors.New("nacked without a reason")

// errHandedBack ends a delivery that no handler has seen, or whose handler was
// stopped: another delivery follows, and this one does not count.
var errHandedBack = errors.New("handed back")

// panicked is the failure of a handler that panicked.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("handler panicked: %v", p.value) }

// final reports whether trying again is of no use.
func final(err error) bool {
	return errors.Is(err, ErrReject) || errors.Is(err, event.ErrMalformed)
}

// RecordFailure is a middleware for watermill's Router: it keeps a handler's
// error, or its panic, as the reason why a message of a Subscriber comes back or
// is a dead letter. Without it the Subscriber knows of a Nack and no more, so
// that neither ErrReject nor ErrPause reach it.
func RecordFailure(h message.HandlerFunc) message.HandlerFunc {
	return func(m *message.Message) (produced []*message.Message, err error) {
		defer func() {
			if r := recover(); r != nil {
				produced, err = nil, &panicked{value: r, stack: debug.Stack()}
			}
			if err == nil {
				return
			}
			if d := deliveryOf(m); d != nil {
				d.failure.Store(&err)
			}
		}()
		return h(m)
	}
}
