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
	if len(changes) == 0 {
		return 0, nil
	}
	started := time.Now()
	var replies []*redis.Cmd
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		replies = replies[:0]
		// One script for many keys needs them in one slot; on a cluster this
		// is the place that groups them by slot.
		for batch := range slices.Chunk(changes, keysPerScript) {
			replies = append(replies, s.addInvalidate(ctx, p, batch))
		}
	})
	if err != nil {
		return 0, fmt.Errorf("invalidate %d keys: %w", len(changes), err)
	}
	took := s.observe("invalidate", started)
	batches := slices.Collect(slices.Chunk(changes, keysPerScript))
	for i, reply := range replies {
		marks, err := reply.Text()
		if err != nil || len(marks) != len(batches[i]) {
			return applied, fmt.Errorf("invalidate %d keys: odd reply %q: %w", len(changes), marks, err)
		}
		for j, change := range batches[i] {
			did := marks[j] == '1'
			if did {
				applied++
				s.counts.of(change.View.Name).invalidations.Add(1)
			}
			s.log.Debug().Str("view", change.View.Name).Str("key", change.Key).Stringer("version", change.Version).
				Bool("applied", did).Dur("took", took).Msg("cache invalidated")
		}
	}
	return applied, nil
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
