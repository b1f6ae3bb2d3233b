package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/redis/go-redis/v9"
)

// GroupTopic names one group in one topic.
type GroupTopic struct{ Group, Topic string }

// More dead letters than this are a matter for a person: nothing removes them by
// itself, and Redis has to hold them.
const (
	DeadMost      = 10_000
	DeadMostBytes = 256 << 20
)

// counted is what Count has found so far, and how far it came.
type counted struct {
	letters map[GroupTopic]int64
	last    string // id of the newest letter that is in it
	added   int64  // letters ever
	gone    int64  // of them, replayed or dropped
}

// Count returns how many dead letters there are. It reads those that came since the
// last call, and all only after some were replayed or dropped; a call that ends
// early is gone on with by the next one.
func (d *DeadLetters) Count(ctx context.Context) (map[GroupTopic]int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	last, added, length, err := d.extent(ctx)
	if err != nil {
		return nil, err
	}
	gone := added - length
	if c := d.counted; c.last == "" || c.gone != gone || c.added > added {
		d.counted = counted{letters: map[GroupTopic]int64{}, last: "0-0"}
	}
	d.counted.added, d.counted.gone = added, gone
	if last == "" || last == d.counted.last {
		return maps.Clone(d.counted.letters), nil
	}
	_, err = d.walk(ctx, "("+d.counted.last, last, func(page []DeadLetter) (bool, error) {
		for _, l := range page {
			d.counted.letters[GroupTopic{l.Group, l.Topic}]++
		}
		d.counted.last = page[len(page)-1].ID
		return true, nil
	})
	if err == nil {
		d.counted.last = last
	}
	return maps.Clone(d.counted.letters), err
}

// Size returns about how many bytes of Redis's memory the dead letters take.
func (d *DeadLetters) Size(ctx context.Context) (int64, error) {
	bytes, err := d.client.MemoryUsage(ctx, d.keys.Dead(), 50).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("measure dead letters: %w", err)
	}
	return bytes, nil
}

// extent returns the id of the newest dead letter ever, "" where there is none,
// how many there were ever, and how many there are.
func (d *DeadLetters) extent(ctx context.Context) (last string, added, length int64, err error) {
	reply, err := d.client.Eval(ctx, extentScript, []string{d.keys.Dead()}).Slice()
	if err != nil {
		return "", 0, 0, fmt.Errorf("look at the dead letters: %w", err)
	}
	if len(reply) == 3 {
		last, _ = reply[0].(string)
		added, _ = reply[1].(int64)
		length, _ = reply[2].(int64)
	}
	return last, added, length, nil
}
