package stream

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
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
	First      time.Time         `json:"first"` // failure
	Last       time.Time         `json:"last"`  // failure, when it became a dead letter
	Fields     map[string]string `json:"fields"`
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

// DeadLetters are the events that were given up. It uses the caller's client.
type DeadLetters struct {
	client redis.UniversalClient
	keys   Keys
}

// NewDeadLetters returns the dead letters under keys.
func NewDeadLetters(client redis.UniversalClient, keys Keys) *DeadLetters {
	return &DeadLetters{client: client, keys: keys}
}

// List returns the dead letters that the filter selects, oldest first.
func (d *DeadLetters) List(ctx context.Context, f Filter) ([]DeadLetter, error) { return nil, nil }

// Show returns one dead letter, or ErrNoDeadLetter.
func (d *DeadLetters) Show(ctx context.Context, id string) (DeadLetter, error) {
	return DeadLetter{}, ErrNoDeadLetter
}

// Replay gives the selected events back to the groups that gave them up, to
// those groups alone, as if never delivered, and returns how many there were. A
// dead letter that is gone is not replayed again.
func (d *DeadLetters) Replay(ctx context.Context, f Filter) (int, error) { return 0, nil }

// Drop removes the selected dead letters for good and returns how many there were.
func (d *DeadLetters) Drop(ctx context.Context, f Filter) (int, error) { return 0, nil }

// Count returns how many dead letters there are, per group.
func (d *DeadLetters) Count(ctx context.Context) (map[string]int64, error) { return nil, nil }
