package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrNoDeadLetter is returned where there is none of the given id.
var ErrNoDeadLetter = errors.New("no such dead letter")

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
	return (f.Topic == "" || f.Topic == l.Topic) &&
		(f.Group == "" || f.Group == l.Group) &&
		(f.Type == "" || f.Type == l.Type) &&
		strings.Contains(strings.ToLower(l.Reason), strings.ToLower(f.Reason)) &&
		(f.OlderThan == 0 || now.Sub(l.Last) > f.OlderThan)
}

// DeadLetters are the events that were given up. It uses the caller's client, and
// is safe for concurrent use.
//
// Nothing removes them but Replay and Drop, so that nothing is lost unseen:
// whoever runs consumers watches how many there are (Count, Size).
type DeadLetters struct {
	client redis.UniversalClient
	keys   Keys
	heads  *redis.Script

	mu      sync.Mutex
	counted counted
}

// A page of dead letters ends at whichever of these comes first.
const (
	deadPage      = 500
	deadPageBytes = 8 << 20 // of whole letters, which Redis reads for the page
)

// NewDeadLetters returns the dead letters under keys.
func NewDeadLetters(client redis.UniversalClient, keys Keys) *DeadLetters {
	return &DeadLetters{client: client, keys: keys, heads: newScript(headsSource)}
}

// List returns the dead letters that the filter selects, oldest first.
func (d *DeadLetters) List(ctx context.Context, f Filter) ([]DeadLetter, error) {
	var found []DeadLetter
	err := d.pages(ctx, f, func(page []DeadLetter) error {
		letters, err := d.whole(ctx, idsOf(page)...)
		found = append(found, letters...)
		return err
	})
	return found, err
}

// Each calls do with each dead letter that the filter selects, oldest first and
// without its fields, so that large ones take no time.
func (d *DeadLetters) Each(ctx context.Context, f Filter, do func(DeadLetter) error) error {
	return d.pages(ctx, f, func(page []DeadLetter) error {
		for _, l := range page {
			l.Fields = nil
			if err := do(l); err != nil {
				return err
			}
		}
		return nil
	})
}

// Show returns one dead letter, or ErrNoDeadLetter.
func (d *DeadLetters) Show(ctx context.Context, id string) (DeadLetter, error) {
	if err := checkID(id); err != nil {
		return DeadLetter{}, err
	}
	found, err := d.whole(ctx, id)
	if err != nil {
		return DeadLetter{}, err
	}
	if len(found) == 0 {
		return DeadLetter{}, fmt.Errorf("%w: %s", ErrNoDeadLetter, id)
	}
	return found[0], nil
}

func checkID(id string) error {
	ms, n, _ := strings.Cut(id, "-")
	if ms == "" || n == "" || strings.Trim(ms+n, "0123456789") != "" || len(ms) > 20 || len(n) > 20 {
		return fmt.Errorf("%w: %q is not of the form 1700000000000-0", ErrNoDeadLetter, id)
	}
	return nil
}

// Replay gives the selected events back to the groups that gave them up, to
// those groups alone, as if never delivered, and returns how many there were. A
// dead letter that is gone is not replayed again. What says of no group stays,
// and is in the error.
func (d *DeadLetters) Replay(ctx context.Context, f Filter) (int, error) {
	n := 0
	var errs []error
	err := d.pages(ctx, f, func(page []DeadLetter) error {
		letters, err := d.whole(ctx, idsOf(page)...)
		if err != nil {
			return err
		}
		replayed, err := d.replay(ctx, letters)
		n += replayed
		errs = append(errs, err)
		return ctx.Err()
	})
	return n, errors.Join(append(errs, err)...)
}

func (d *DeadLetters) replay(ctx context.Context, letters []DeadLetter) (int, error) {
	pipe := d.client.Pipeline()
	var errs []error
	var cmds []*redis.Cmd
	for _, l := range letters {
		if l.Group == "" || l.Topic == "" || l.Entry == "" {
			errs = append(errs, fmt.Errorf("dead letter %s says of no group that it comes from", l.ID))
			continue
		}
		again := delivery{topic: l.Topic, id: l.Entry}
		for name, value := range l.Fields {
			again.fields = append(again.fields, name, value)
		}
		cmds = append(cmds, pipe.Eval(ctx, replayScript,
			[]string{d.keys.Dead(), d.keys.Parked(l.Group, l.Topic), d.keys.ParkedEntries(l.Group, l.Topic)},
			l.ID, l.Entry, again.pack(l.First, l.Reason)))
	}
	execute(ctx, pipe)
	n := 0
	for _, cmd := range cmds {
		done, err := cmd.Int()
		if err != nil {
			errs = append(errs, fmt.Errorf("replay dead letters: %w", err))
			break // the others say the same
		}
		n += done
	}
	return n, errors.Join(errs...)
}

// Drop removes the selected dead letters for good and returns how many there were.
func (d *DeadLetters) Drop(ctx context.Context, f Filter) (int, error) {
	n := 0
	err := d.pages(ctx, f, func(page []DeadLetter) error {
		dropped, err := d.client.XDel(ctx, d.keys.Dead(), idsOf(page)...).Result()
		if err != nil {
			return fmt.Errorf("drop dead letters: %w", err)
		}
		n += int(dropped)
		return nil
	})
	return n, err
}

// pages calls do with the heads of the dead letters that the filter selects, of
// those that are there when it begins: replaying makes new ones.
func (d *DeadLetters) pages(ctx context.Context, f Filter, do func([]DeadLetter) error) error {
	selected, now := 0, time.Now()
	some := func(page []DeadLetter) (more bool, err error) {
		page = slices.DeleteFunc(page, func(l DeadLetter) bool { return !f.selects(l, now) })
		if f.Limit > 0 {
			page = page[:min(len(page), f.Limit-selected)]
		}
		if selected += len(page); len(page) > 0 {
			err = do(page)
		}
		return err == nil && (f.Limit == 0 || selected < f.Limit), err
	}
	if len(f.IDs) == 0 {
		last, _, _, err := d.extent(ctx)
		if err != nil || last == "" {
			return err
		}
		_, err = d.walk(ctx, "-", last, some)
		return err
	}
	for _, id := range f.IDs {
		if err := checkID(id); err != nil {
			return err
		}
	}
	ids := slices.Clone(f.IDs)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if more, err := d.walk(ctx, id, id, some); err != nil || !more {
			return err
		}
	}
	return nil
}

// walk calls do with page after page of the letters from first to last, until it
// wants no more.
func (d *DeadLetters) walk(ctx context.Context, first, last string, do func([]DeadLetter) (more bool, err error)) (more bool, err error) {
	for {
		page, err := d.page(ctx, first, last)
		if err != nil || len(page) == 0 {
			return true, err
		}
		first = "(" + page[len(page)-1].ID
		if more, err := do(page); err != nil || !more {
			return false, err
		}
		if first == "("+last {
			return true, nil
		}
	}
}

// page reads the heads of some letters.
func (d *DeadLetters) page(ctx context.Context, first, last string) ([]DeadLetter, error) {
	args := append([]any{first, last, deadPage, deadPageBytes, headMost}, headFields...)
	reply, err := d.heads.Run(ctx, d.client, []string{d.keys.Dead()}, args...).Slice()
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	page := make([]DeadLetter, 0, len(reply))
	for _, letter := range reply {
		if parts, _ := letter.([]any); len(parts) == 3 {
			id, _ := parts[0].(string)
			page = append(page, readDeadLetter(id, texts(parts[2])))
		}
	}
	return page, d.openParcels(ctx, page)
}

// openParcels reads those letters whole whose type is in a parcel; they are few.
func (d *DeadLetters) openParcels(ctx context.Context, page []DeadLetter) error {
	for i, l := range page {
		if _, packed := l.Fields[deadParcel]; !packed {
			continue
		}
		switch whole, err := d.whole(ctx, l.ID); {
		case err != nil:
			return err
		case len(whole) == 1:
			page[i] = whole[0]
		}
	}
	return nil
}

func idsOf(letters []DeadLetter) []string {
	ids := make([]string, len(letters))
	for i, l := range letters {
		ids[i] = l.ID
	}
	return ids
}
