package consumers

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// unquoted has the dead letter of an event that failed say nothing of what was asked, nor
// of an answer that the app brought. Where somebody is to be forgotten it is the event
// itself, which holds no prompt, so that it can be done after all.
func unquoted(e event.Event, d aiData, err error) error {
	if err == nil || e.Type == event.AIForget || errors.Is(err, stream.ErrPause) {
		return err
	}
	if d.scope == "" {
		d.scope = e.Subject // it could not be read
	}
	return stream.InStead(err, bare(e, d)...)
}

// calm makes an error, whose dead letter is unquoted, of what whoever handles an event has
// panicked with, nil where it has not; d is what was read of the event by then.
func (w *Warmer) calm(e event.Event, d aiData, panicked any, err error) error {
	if panicked == nil {
		return err
	}
	err = fmt.Errorf("handler panicked: %s", panicText(panicked))
	w.o.Log.Error().Err(err).Bytes("stack", debug.Stack()).Str("type", e.Type).Msg("handler panicked")
	return unquoted(e, d, err)
}

// panicText is what a panic says where the runtime has made it. Anybody else's may hold
// anything.
func panicText(value any) string {
	if err, ok := value.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("a %T", value)
}
