package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Outcome says how a fill ended.
type Outcome byte

// How a fill can end.
const (
	Accepted Outcome = 'a' // the entry is in the cache
	Refused  Outcome = 'r' // it is not, and at most those who asked before Taken may have it
	Failed   Outcome = 'f' // there is no entry; Reason says why
)

// Filled is an announcement: what became of a fill that somebody may wait for.
type Filled struct {
	Entry   Entry // of a failure only View and Key
	Outcome Outcome
	Taken   time.Time // when the lease was taken, by the clock of Redis; zero where there was none
	At      time.Time // when the outcome was known to be so, by the same clock
	Reason  string    // why it was refused or failed
	MinXid  *MinXid   // of a failure: it concerns only those who asked for this very transaction
}

// Answers reports whether the announcement may answer a question asked at that
// time by the clock of Redis: the time in the id of its fill.requested entry,
// which is cut to the millisecond. The answer is then no older than the question:
//
//   - an accepted value was current at At, so the question must be older;
//   - a refused one was read after Taken, so the question must be older than that,
//     and nothing older may come to be there (see surpassed);
//   - a failure has no age, and answers everybody.
//
// Where an accepted value is too old for a question, Read again: something at
// least as new is there, or has been invalidated since. Where a refused one is,
// ask for another fill.
func (f Filled) Answers(asked time.Time) bool {
	asked = asked.Truncate(time.Millisecond).Add(time.Millisecond) // it was before the end of its millisecond
	switch f.Outcome {
	case Accepted:
		return !f.At.Before(asked)
	case Refused:
		return f.surpassed() && !f.Taken.Before(asked)
	default:
		return true
	}
}

// Why a value is refused though whatever is found from then on is at least as new.
const (
	whyKey    = "the key has changed since" // as entry.lua has it
	whyView   = "the whole view has changed since"
	whyNoView = "the view has no key" // it is where it belongs, and counts when the view has one
)

// surpassed reports whether nothing is found after a refused value that is older than
// it. Of one that has lost its lease nobody knows that:
//
//  1. a fill takes the lease; an app's event, which has no version, takes it away;
//  2. another fill takes the lease, and reads the row;
//  3. the row changes, and the first fill reads it;
//  4. the second puts what it has read, the first is refused;
//  5. the change of 3 is on its way still: who comes now finds the older row.
//
// What a model made is as old as its lease, so later ones are newer.
func (f Filled) surpassed() bool {
	for _, why := range []string{whyKey, whyView, whyNoView} {
		if strings.HasSuffix(f.Reason, why) {
			return true
		}
	}
	return f.Entry.Snapshot.Xmax == 0
}

// Announce tells those who just asked about an entry that was already there. It
// fails with ErrRefused where the entry has been replaced or invalidated since
// it was read.
func (s *Store) Announce(ctx context.Context, e Entry) error {
	var clock *redis.TimeCmd
	var head, fence *redis.StringCmd
	// In this order: what is found was so at the time, or later.
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		clock = p.Time(ctx)
		head = p.GetRange(ctx, s.keys.entry(e.View, e.Key), 0, headerLen-1)
		fence = p.Get(ctx, s.keys.view(e.View))
	})
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return fmt.Errorf("announce %s: %w", e.View, err)
	}
	h, _, err := decodeHeader([]byte(head.Val()))
	whole, known, viewErr := decodeViewReply(fence)
	if viewErr != nil {
		return fmt.Errorf("announce %s: %w", e.View, viewErr)
	}
	if err != nil || h.state == stateFence || h.version != e.Version || !h.saved.Equal(e.Saved) || !known || e.Version.Compare(whole.fence) < 0 {
		return fmt.Errorf("announce %s: %w: it has changed since", e.View, ErrRefused)
	}
	s.announce(ctx, Filled{Entry: e, Outcome: Accepted, At: clock.Val()})
	return nil
}

// AnnounceFailure tells those who wait for a key that it will not be filled,
// where no lease was taken for it. With a MinXid it concerns only those who
// asked for that transaction.
func (s *Store) AnnounceFailure(ctx context.Context, view, key string, asked *MinXid, reason string) error {
	return s.publish(ctx, Filled{Entry: Entry{View: view, Key: key}, Outcome: Failed, At: s.peer.now(), Reason: reason, MinXid: asked})
}

// announce publishes what is already decided. That nobody hears it is no
// failure of what was decided: who waits will ask again.
func (s *Store) announce(ctx context.Context, f Filled) {
	if err := s.publish(ctx, f); err != nil {
		s.log.Warn().Err(err).Str("view", f.Entry.View).Msg("announcement failed; those who wait will ask again")
	}
}

func (s *Store) publish(ctx context.Context, f Filled) error {
	message, err := f.append(nil)
	if err != nil {
		return fmt.Errorf("announce %s: %w", f.Entry.View, err)
	}
	if err := s.client.Publish(ctx, s.keys.filled(), message).Err(); err != nil {
		return fmt.Errorf("announce %s: %w", f.Entry.View, err)
	}
	return nil
}

// append appends the bytes of an announcement:
//
//	schema · outcome · view · key · taken · at · reason · epoch and xid of MinXid · entry, unless it failed
//
// Texts have their length before them; times are microseconds; all integers are
// varints. An xid of 0, which PostgreSQL never gives, means no MinXid.
func (f Filled) append(b []byte) ([]byte, error) {
	b = append(b, schema, byte(f.Outcome))
	b = appendText(b, f.Entry.View)
	b = appendText(b, f.Entry.Key)
	b = appendMicros(b, f.Taken)
	b = appendMicros(b, f.At)
	b = appendText(b, f.Reason)
	asked := f.MinXid
	if asked == nil {
		asked = &MinXid{}
	}
	b = binary.AppendUvarint(b, asked.Epoch)
	b = binary.AppendUvarint(b, asked.Xid)
	if f.Outcome == Failed {
		return b, nil
	}
	return appendEntry(b, f.Entry, "")
}

// announcedKey reads only whom an announcement concerns, since most of them
// concern nobody here.
func announcedKey(b string) (view, key string, err error) {
	if len(b) < 2 || b[0] != schema {
		return "", "", errCorrupt
	}
	c := cursor{rest: b[2:]}
	view, key = c.text(), c.text()
	return view, key, c.err
}

// decodeFilled reads an announcement.
func decodeFilled(b string) (Filled, error) {
	if len(b) < 2 || b[0] != schema {
		return Filled{}, errCorrupt
	}
	c := cursor{rest: b[2:]}
	f := Filled{Outcome: Outcome(b[1])}
	view, key := strings.Clone(c.text()), strings.Clone(c.text())
	f.Taken, f.At = c.micros(), c.micros()
	f.Reason = strings.Clone(c.text())
	if asked := (MinXid{Epoch: c.uvarint(), Xid: c.uvarint()}); asked.Xid != 0 {
		f.MinXid = &asked
	}
	if c.err != nil {
		return Filled{}, c.err
	}
	switch f.Outcome {
	case Failed:
		f.Entry = Entry{View: view, Key: key}
		return f, nil
	case Accepted, Refused:
		e, h, err := decodeEntry(view, key, []byte(c.rest))
		if err == nil && h.state == stateFence {
			err = errors.New("an announcement without its entry")
		}
		f.Entry = e
		return f, err
	default:
		return Filled{}, errCorrupt
	}
}
