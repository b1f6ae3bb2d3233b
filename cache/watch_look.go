package cache

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/view"
)

// Look reads many keys of a view in one round trip, for those who watch them. It
// counts nothing as read. The results stand in the order of the keys.
func (s *Store) Look(ctx context.Context, v *view.View, keys []string) ([]Result, error) {
	entries := make([]*redis.StringCmd, len(keys))
	var fence *redis.StringCmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, key := range keys {
			entries[i] = p.Get(ctx, s.keys.entry(v.Name, key))
		}
		fence = p.Get(ctx, s.keys.view(v.Name))
	})
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, fmt.Errorf("look at %d keys of %s: %w", len(keys), v.Name, err)
	}
	now := s.peer.now()
	results := make([]Result, len(keys))
	for i, key := range keys {
		results[i] = Result{Entry: Entry{View: v.Name, Key: key}, Now: now}
		if err := s.judge(&results[i], Query{View: v, Key: key}, entries[i], fence); err != nil {
			return nil, fmt.Errorf("look at %d keys of %s: %w", len(keys), v.Name, err)
		}
	}
	return results, nil
}

// Marks returns a text for each view, in one round trip. It changes when all of a
// view's entries may have been invalidated together, which is announced to nobody:
// by a fence, by another Redis, by one that has lost everything.
func (s *Store) Marks(ctx context.Context, views []*view.View) ([]string, error) {
	replies := make([]*redis.StringCmd, len(views))
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, v := range views {
			replies[i] = p.Get(ctx, s.keys.view(v.Name))
		}
	})
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, fmt.Errorf("look at the keys of %d views: %w", len(views), err)
	}
	marks := make([]string, len(views))
	for i, reply := range replies {
		text, err := reply.Result()
		if err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "WRONGTYPE") {
			return nil, fmt.Errorf("look at the keys of %d views: %w", len(views), err)
		}
		marks[i] = s.RunID() + text
	}
	return marks, nil
}
