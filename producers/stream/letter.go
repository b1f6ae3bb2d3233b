package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/redis/go-redis/v9"

	"mythiccache/producers/event"
)

// DeadLetter is an event that was given up.
type DeadLetter struct {
	ID         string            `json:"id"` // of the dead letter itself
	Topic      string            `json:"topic"`
	Group      string            `json:"group"`
	Entry      string            `json:"entry"`  // the id that it had in its stream
	Type       string            `json:"type"`   // of the event, where it has one
	Reason     string            `json:"reason"` // of the last failure
	Deliveries int               `json:"deliveries"`
	First      time.Time         `json:"first"`  // failure
	Last       time.Time         `json:"last"`   // failure, when it became a dead letter
	Fields     map[string]string `json:"fields"` // of the entry, as they were
}

// headFields are what a letter is selected and listed by.
var headFields = []any{
	deadReason, deadGroup, deadTopic, deadEntry, deadDeliveries, deadFirst, deadLast,
	event.FieldType, redisstream.UUIDHeaderKey, "metadata",
}

// headMost is how long one of them may be, in bytes.
const headMost = 4 << 10

// ownFields takes apart what was written of a letter and the event's own fields.
// Ours are the last ones: an event may have fields of the same names.
func ownFields(fields []string) (own map[string]string, theirs []string) {
	own = map[string]string{}
	for i := len(fields) - 2; i >= 0; i -= 2 {
		name := fields[i]
		if _, twice := own[name]; twice || !slices.Contains(headFields[:7], any(name)) {
			break
		}
		own[name], fields = fields[i+1], fields[:i]
	}
	return own, fields
}

// readDeadLetter makes a letter of its names and values.
func readDeadLetter(id string, fields []string) DeadLetter {
	own, fields := ownFields(fields)
	l := DeadLetter{
		ID: id, Topic: own[deadTopic], Group: own[deadGroup], Entry: own[deadEntry], Reason: own[deadReason],
		Fields: map[string]string{},
	}
	l.Deliveries, _ = strconv.Atoi(own[deadDeliveries])
	l.First, _ = time.Parse(time.RFC3339Nano, own[deadFirst])
	l.Last, _ = time.Parse(time.RFC3339Nano, own[deadLast])
	if len(fields) == 2 && fields[0] == deadParcel {
		var p parcel
		if err := json.Unmarshal([]byte(fields[1]), &p); err == nil {
			fields = nil
			for _, bytes := range p.Fields {
				fields = append(fields, string(bytes))
			}
		}
	}
	for i := 0; i+1 < len(fields); i += 2 {
		l.Fields[fields[i]] = fields[i+1]
	}
	if message, err := decode(l.Entry, fields); err == nil {
		l.Type = message.Metadata[event.FieldType]
	}
	return l
}

// whole reads the letters of those ids with all their fields; those that are gone
// are left out.
func (d *DeadLetters) whole(ctx context.Context, ids ...string) ([]DeadLetter, error) {
	pipe := d.client.Pipeline()
	cmds := make([]*redis.Cmd, len(ids))
	for i, id := range ids {
		// Not XRange, which has one value of fields of one name.
		cmds[i] = pipe.Do(ctx, "XRANGE", d.keys.Dead(), id, id)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	var letters []DeadLetter
	for _, cmd := range cmds {
		found, _ := cmd.Val().([]any)
		for _, entry := range found {
			if parts, _ := entry.([]any); len(parts) == 2 {
				id, _ := parts[0].(string)
				letters = append(letters, readDeadLetter(id, texts(parts[1])))
			}
		}
	}
	return letters, nil
}

// texts are the strings of a reply.
func texts(reply any) []string {
	values, _ := reply.([]any)
	list := make([]string, len(values))
	for i, value := range values {
		list[i], _ = value.(string)
	}
	return list
}
