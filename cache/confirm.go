package cache

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/view"
)

// Confirm says that Redis, under this run_id, lacks nothing that it had under
// the one before: entries from before count as fresh again. It fails with
// ErrRestarted where that Redis is no more.
func (s *Store) Confirm(ctx context.Context, views []*view.View, runID string) error {
	if len(runID) != runIDLen {
		return fmt.Errorf("confirm views: %q is no run_id", runID)
	}
	if len(views) == 0 {
		return nil
	}
	replies := make([]*redis.Cmd, len(views))
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, v := range views {
			replies[i] = call(ctx, p, &s.scripts.confirm, []string{s.keys.view(v.Name)}, runID)
		}
	})
	if err != nil {
		return fmt.Errorf("confirm views: %w", err)
	}
	for _, reply := range replies {
		if same, _ := reply.Int(); same == 0 {
			return fmt.Errorf("confirm views: %w", ErrRestarted)
		}
	}
	return nil
}

// Confirmed returns, by view, the run_id that was last confirmed: empty where
// none was. A view without a key is left out.
func (s *Store) Confirmed(ctx context.Context, views []*view.View) (map[string]string, error) {
	replies := make([]*redis.StringCmd, len(views))
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, v := range views {
			replies[i] = p.Get(ctx, s.keys.view(v.Name))
		}
	})
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, fmt.Errorf("read views: %w", err)
	}
	runIDs := make(map[string]string, len(views))
	for i, v := range views {
		k, known, err := decodeViewReply(replies[i])
		if err != nil {
			return nil, fmt.Errorf("read view %s: %w", v.Name, err)
		}
		if known {
			runIDs[v.Name] = k.confirmed
		}
	}
	return runIDs, nil
}
