package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/producers/event"
)

// ErrNoDeadLetter is returned where there is none of the given id.
var ErrNoDeadLetter = errors.New("no such dead letter")

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

// Filter selects dead letters; the zero value selects all.
type Filter struct {
	IDs       []string      // these alone
	Topic     string        // equal
	Group     string        // equal
	Type      string        // equal
	Reason    string        // contained in the reason, whatever the case
	OlderThan time.Duration // since Last
	Limit     int           // at most so many; 0: all
}

func (f Filter) selects(l DeadLetter, now time.Time) bool {
	return (len(f.IDs) == 0 || slices.Contains(f.IDs, l.ID)) &&
		(f.Topic == "" || f.Topic == l.Topic) &&
		(f.Group == "" || f.Group == l.Group) &&
		(f.Type == "" || f.Type == l.Type) &&
		strings.Contains(strings.ToLower(l.Reason), strings.ToLower(f.Reason)) &&
		(f.OlderThan == 0 || now.Sub(l.Last) > f.OlderThan)
}

// DeadLetters are the events that were given up. It uses the caller's client, and
// is safe for concurrent use.
type DeadLetters struct {
	client redis.UniversalClient
	keys   Keys

	mu      sync.Mutex
	counted counted
}

// counted is what Count found the last time, and where.
type counted struct {
	byGroup map[string]int64
	last    string // id of the newest letter ever
	added   int64  // letters ever
	gone    int64  // of them, replayed or dropped
}

// deadPage is how many dead letters are read at a time: some have megabytes.
const deadPage = 50

// NewDeadLetters returns the dead letters under keys.
func NewDeadLetters(client redis.UniversalClient, keys Keys) *DeadLetters {
	return &DeadLetters{client: client, keys: keys}
}

// List returns the dead letters that the filter selects, oldest first.
func (d *DeadLetters) List(ctx context.Context, f Filter) ([]DeadLetter, error) {
	var found []DeadLetter
	err := d.each(ctx, f, func(l DeadLetter) error {
		found = append(found, l)
		return nil
	})
	return found, err
}

// Show returns one dead letter, or ErrNoDeadLetter.
func (d *DeadLetters) Show(ctx context.Context, id string) (DeadLetter, error) {
	if strings.Count(id, "-") != 1 || addedAt(id).IsZero() {
		return DeadLetter{}, fmt.Errorf("%w: %q is not of the form 1700000000000-0", ErrNoDeadLetter, id)
	}
	found, err := d.client.XRange(ctx, d.keys.Dead(), id, id).Result()
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read dead letter %s: %w", id, err)
	}
	if len(found) == 0 {
		return DeadLetter{}, fmt.Errorf("%w: %s", ErrNoDeadLetter, id)
	}
	return readDeadLetter(found[0]), nil
}

// Replay gives the selected events back to the groups that gave them up, to
// those groups alone, as if never delivered, and returns how many there were. A
// dead letter that is gone is not replayed again.
func (d *DeadLetters) Replay(ctx context.Context, f Filter) (int, error) {
	n := 0
	err := d.each(ctx, f, func(l DeadLetter) error {
		again := delivery{topic: l.Topic, id: l.Entry, values: make(map[string]any, len(l.Fields))}
		for name, value := range l.Fields {
			again.values[name] = value
		}
		done, err := d.client.Eval(ctx, replayScript,
			[]string{d.keys.Dead(), d.keys.Parked(l.Group, l.Topic), d.keys.ParkedEntries(l.Group, l.Topic)},
			l.ID, l.Entry, again.pack(l.First, l.Reason)).Int()
		if err != nil {
			return fmt.Errorf("replay dead letter %s: %w", l.ID, err)
		}
		n += done
		return nil
	})
	return n, err
}

// Drop removes the selected dead letters for good and returns how many there were.
func (d *DeadLetters) Drop(ctx context.Context, f Filter) (int, error) {
	n := 0
	err := d.each(ctx, f, func(l DeadLetter) error {
		dropped, err := d.client.XDel(ctx, d.keys.Dead(), l.ID).Result()
		if err != nil {
			return fmt.Errorf("drop dead letter %s: %w", l.ID, err)
		}
		n += int(dropped)
		return nil
	})
	return n, err
}

// Count returns how many dead letters there are, by group. It reads those that
// came since the last call, and all only after some were replayed or dropped.
func (d *DeadLetters) Count(ctx context.Context) (map[string]int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := d.client.XInfoStream(ctx, d.keys.Dead()).Result()
	if err != nil {
		if strings.Contains(err.Error(), "no such key") {
			return map[string]int64{}, nil
		}
		return nil, fmt.Errorf("count dead letters: %w", err)
	}
	now := counted{byGroup: map[string]int64{}, last: info.LastGeneratedID, added: info.EntriesAdded, gone: info.EntriesAdded - info.Length}
	start := "-"
	if before := d.counted; before.last != "" && before.gone == now.gone && before.added <= now.added {
		maps.Copy(now.byGroup, before.byGroup)
		start = "(" + before.last
	}
	for start != "("+now.last {
		page, err := d.client.XRangeN(ctx, d.keys.Dead(), start, now.last, deadPage).Result()
		if err != nil {
			return nil, fmt.Errorf("count dead letters: %w", err)
		}
		for _, m := range page {
			now.byGroup[readDeadLetter(m).Group]++
		}
		if len(page) < deadPage {
			break
		}
		start = "(" + page[len(page)-1].ID
	}
	d.counted = now
	return maps.Clone(now.byGroup), nil
}

// each calls do with every dead letter that the filter selects, of those that
// are there when it begins: replaying makes new ones.
func (d *DeadLetters) each(ctx context.Context, f Filter, do func(DeadLetter) error) error {
	last, err := d.client.XRevRangeN(ctx, d.keys.Dead(), "+", "-", 1).Result()
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	if len(last) == 0 {
		return nil
	}
	now, n, start := time.Now(), 0, "-"
	for {
		page, err := d.client.XRangeN(ctx, d.keys.Dead(), start, last[0].ID, deadPage).Result()
		if err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
		for _, m := range page {
			l := readDeadLetter(m)
			if !f.selects(l, now) {
				continue
			}
			if err := do(l); err != nil {
				return err
			}
			if n++; n == f.Limit {
				return nil
			}
		}
		if len(page) < deadPage {
			return nil
		}
		start = "(" + page[len(page)-1].ID
	}
}

func readDeadLetter(m redis.XMessage) DeadLetter {
	own := func(name string) string {
		value, _ := m.Values[name].(string)
		delete(m.Values, name)
		return value
	}
	l := DeadLetter{
		ID: m.ID, Topic: own(deadTopic), Group: own(deadGroup), Entry: own(deadEntry), Reason: own(deadReason),
		Fields: map[string]string{},
	}
	l.Deliveries, _ = strconv.Atoi(own(deadDeliveries))
	l.First, _ = time.Parse(time.RFC3339Nano, own(deadFirst))
	l.Last, _ = time.Parse(time.RFC3339Nano, own(deadLast))
	if packed := own(deadParcel); packed != "" {
		var p parcel
		_ = json.Unmarshal([]byte(packed), &p) // what nobody can read has no fields
		for i := 0; i+1 < len(p.Fields); i += 2 {
			l.Fields[string(p.Fields[i])] = string(p.Fields[i+1])
		}
	}
	for name, value := range m.Values {
		l.Fields[name], _ = value.(string)
	}
	if message, err := decode(l.Entry, m.Values); err == nil {
		l.Type = message.Metadata[event.FieldType]
	}
	return l
}
