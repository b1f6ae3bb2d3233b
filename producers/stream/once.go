package stream

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"mythiccache/producers/event"
)

// OnceFor is how long AppendOnce knows an event again. Each takes some 200 bytes of
// Redis for so long, which is what bounds it.
const OnceFor = 24 * time.Hour

// AppendOnce is Append for senders that may send again what they cannot know to have
// arrived: of events with the same source and id, the first is appended, and those
// that come within OnceFor of it get the id of its entry and before. Entry and
// memory are written in one script, so that neither a crash nor a lost answer
// comes between. An event without an id or a source is always appended.
//
// go-redis sends a script again whose answer was lost: before then speaks of this
// very call.
func (p *Publisher) AppendOnce(ctx context.Context, events ...event.Event) (ids []string, before []bool, err error) {
	additions, err := additionsOf(events)
	if err != nil {
		return nil, nil, err
	}
	if p.closed.Load() {
		return nil, nil, fmt.Errorf("publisher is %w", errClosed)
	}
	for done := 0; done < len(additions); {
		n := bite(additions[done:])
		written, known, err := p.once(ctx, additions[done:done+n], events[done:done+n])
		if err != nil {
			return ids, before, fmt.Errorf("append %d events once: %w", len(events), err)
		}
		ids, before = append(ids, written...), append(before, known...)
		done += n
	}
	p.o.Log.Debug().Int("events", len(ids)).Msg("published")
	return ids, before, nil
}

// once runs the script: all of its events are appended, or none.
func (p *Publisher) once(ctx context.Context, additions []addition, events []event.Event) (ids []string, before []bool, err error) {
	keys := make([]string, 0, 2*len(additions))
	args := []any{OnceFor.Milliseconds()}
	for i, a := range additions {
		topic := p.keys.Topic(a.topic)
		memory := topic // none
		if e := events[i]; e.ID != "" && e.Source != "" {
			memory = p.keys.Once(e.Source, e.ID)
		}
		keys = append(keys, topic, memory)
		args = append(append(args, len(a.fields)), a.fields...)
	}
	reply, err := p.onceScript.Run(ctx, p.client, keys, args...).Slice()
	if err != nil {
		return nil, nil, err
	}
	if len(reply) != len(keys) {
		return nil, nil, errors.New("redis answers for another number of events")
	}
	ids, before = make([]string, len(additions)), make([]bool, len(additions))
	for i := range additions {
		ids[i], _ = reply[2*i].(string)
		before[i] = reply[2*i+1] == int64(1)
		if !before[i] && p.published != nil {
			p.published.WithLabelValues(additions[i].topic).Inc()
		}
	}
	return ids, before, nil
}

// Once is the memory of an event that AppendOnce has appended: the id of its entry.
// Neither source nor id can hold a NUL.
func (k Keys) Once(source, id string) string {
	sum := sha256.Sum256([]byte(source + "\x00" + id))
	return k.root + "once:" + base64.RawURLEncoding.EncodeToString(sum[:16])
}
