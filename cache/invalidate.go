package cache

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

// Change says that a key's value has changed.
type Change struct {
	View *view.View
	Key  string
	// Version is that of a snapshot that has seen the change. Zero, for an
	// event without one: value and lease are removed whatever their versions.
	Version version.Version
}

// keysPerScript bounds how long one script holds up Redis.
const keysPerScript = 100

// Invalidate removes what is older than its change, and leaves a fence at the
// change's version that outlives any fill under way. What is at the version or
// newer stays. It returns how many changes did something. After an error some
// may have been applied and some not; applying all again does no harm.
func (s *Store) Invalidate(ctx context.Context, changes []Change) (applied int, err error) {
	all, err := s.InvalidateEach(ctx, changes)
	for _, one := range all {
		if one.Did {
			applied++
		}
	}
	return applied, err
}

// Applied says what became of a change.
type Applied struct {
	Did   bool      // something: it removed a value, or raised the fence
	Saved time.Time // when the value that it removed had been stored, by the clock of Redis; zero where there was none
}

// InvalidateEach is Invalidate, and returns what became of each change. After an error
// these are the first of them, or none.
func (s *Store) InvalidateEach(ctx context.Context, changes []Change) ([]Applied, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	started := time.Now()
	var replies []*redis.Cmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		replies = replies[:0]
		// One script for many keys needs them in one slot; on a cluster this
		// is the place that groups them by slot.
		for batch := range slices.Chunk(changes, keysPerScript) {
			replies = append(replies, s.addInvalidate(ctx, p, batch))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("invalidate %d keys: %w", len(changes), err)
	}
	took := s.observe("invalidate", started)
	all := make([]Applied, 0, len(changes))
	for _, reply := range replies {
		marks, err := reply.Text()
		if err == nil {
			all, err = appendApplied(all, marks)
		}
		if err != nil {
			return all, fmt.Errorf("invalidate %d keys: %w", len(changes), err)
		}
	}
	if len(all) != len(changes) {
		return nil, fmt.Errorf("invalidate %d keys: the reply is about %d", len(changes), len(all))
	}
	for i, change := range changes {
		if all[i].Did {
			s.counts.of(change.View.Name).invalidations.Add(1)
		}
		s.log.Debug().Str("view", change.View.Name).Str("key", change.Key).Stringer("version", change.Version).
			Bool("applied", all[i].Did).Dur("took", took).Msg("cache invalidated")
	}
	return all, nil
}

// appendApplied reads what invalidate.lua returns.
func appendApplied(all []Applied, marks string) ([]Applied, error) {
	for len(marks) > 0 {
		one, rest := Applied{Did: marks[0] != '0'}, marks[1:]
		if marks[0] == '2' {
			if len(rest) < millisLen {
				return all, fmt.Errorf("odd reply %q", marks)
			}
			one.Saved, rest = millis([]byte(rest[:millisLen])), rest[millisLen:]
		}
		all, marks = append(all, one), rest
	}
	return all, nil
}

func (s *Store) addInvalidate(ctx context.Context, p redis.Pipeliner, batch []Change) *redis.Cmd {
	names := make([]string, len(batch))
	args := make([]any, 0, 1+len(batch))
	args = append(args, s.fenceTTL.Milliseconds())
	for i, change := range batch {
		names[i] = s.keys.entry(change.View.Name, change.Key)
		text := ""
		if !change.Version.IsZero() {
			text = change.Version.String()
		}
		args = append(args, text)
	}
	return call(ctx, p, &s.scripts.invalidate, names, args...)
}
