package stream

import (
	"maps"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/rs/zerolog"
)

// ZerologAdapter has watermill log through zerolog. What watermill calls info,
// the start and stop of each handler, is debug here.
func ZerologAdapter(log zerolog.Logger) watermill.LoggerAdapter { return adapter{log: log} }

type adapter struct {
	log    zerolog.Logger
	fields watermill.LogFields
}

func (a adapter) write(e *zerolog.Event, msg string, fields watermill.LogFields) {
	e.Fields(map[string]any(a.fields)).Fields(map[string]any(fields)).Msg(msg)
}

func (a adapter) Error(msg string, err error, fields watermill.LogFields) {
	a.write(a.log.Error().Err(err), msg, fields)
}

func (a adapter) Info(msg string, fields watermill.LogFields) { a.write(a.log.Debug(), msg, fields) }

func (a adapter) Debug(msg string, fields watermill.LogFields) { a.write(a.log.Debug(), msg, fields) }

func (a adapter) Trace(msg string, fields watermill.LogFields) { a.write(a.log.Trace(), msg, fields) }

func (a adapter) With(fields watermill.LogFields) watermill.LoggerAdapter {
	all := maps.Clone(a.fields)
	if all == nil {
		all = watermill.LogFields{}
	}
	maps.Copy(all, fields)
	return adapter{log: a.log, fields: all}
}
