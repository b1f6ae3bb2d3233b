package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

// viewKey is what a view's own key holds: the version below which no entry of
// the view counts, and the run_id of the Redis that is confirmed to lack
// nothing. Its bytes are the schema, the version's text and the run_id's.
type viewKey struct {
	fence     version.Version
	confirmed string // unconfirmed where nobody has yet
}

// unconfirmed stands in place of a run_id. It is none.
const unconfirmed = "----------------------------------------"

const viewKeyLen = 1 + version.Len + runIDLen

// decodeViewReply reads a reply to GET of a view's key, and reports whether
// there is one. One that is not understood is as absent: its entries are misses.
func decodeViewReply(cmd *redis.StringCmd) (viewKey, bool, error) {
	text, err := cmd.Result()
	if errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "WRONGTYPE") {
		return viewKey{}, false, nil
	}
	if err != nil {
		return viewKey{}, false, err
	}
	k, ok := decodeViewKey(text)
	return k, ok, nil
}

func decodeViewKey(text string) (viewKey, bool) {
	if len(text) != viewKeyLen || text[0] != schema {
		return viewKey{}, false
	}
	fence, err := version.Parse(text[1 : 1+version.Len])
	if err != nil {
		return viewKey{}, false
	}
	return viewKey{fence: fence, confirmed: strings.Clone(text[1+version.Len:])}, true
}

// What fence.lua does where the view's key is already there.
const (
	fenceRaise  = "raise"  // raises the fence
	fenceCreate = "create" // leaves it alone
)

// Fence invalidates every entry of a view that is older than at. A fence never
// goes down. Of a model's view a zero version means now, by the clock of Redis.
func (s *Store) Fence(ctx context.Context, v *view.View, at version.Version) error {
	if at.IsZero() {
		if !v.Model {
			return fmt.Errorf("fence %s: no version", v.Name)
		}
		now, err := s.now(ctx)
		if err != nil {
			return fmt.Errorf("fence %s: %w", v.Name, err)
		}
		// The microsecond puts the fence above a lease taken at this very moment.
		at = version.At(now.Add(time.Microsecond))
	}
	return s.fence(ctx, []fencing{{v, at, fenceRaise}})
}

// FenceAll invalidates every entry older than at of all views that are loaded
// from PostgreSQL, and makes the keys of views that lack theirs.
func (s *Store) FenceAll(ctx context.Context, views []*view.View, at version.Version) error {
	return s.fence(ctx, fencings(views, at, fenceRaise))
}

// EnsureViews makes the keys of views that lack theirs, fenced at the version,
// and leaves the others as they are. A model's view is fenced at zero.
func (s *Store) EnsureViews(ctx context.Context, views []*view.View, at version.Version) error {
	return s.fence(ctx, fencings(views, at, fenceCreate))
}

// fencing is one run of fence.lua.
type fencing struct {
	view *view.View
	at   version.Version
	mode string
}

// fencings are those of many views. A model's view is only made where it lacks
// its key, since a snapshot's version says nothing about its entries.
func fencings(views []*view.View, at version.Version, mode string) []fencing {
	all := make([]fencing, len(views))
	for i, v := range views {
		all[i] = fencing{v, at, mode}
		if v.Model {
			all[i] = fencing{v, version.Version{}, fenceCreate}
		}
	}
	return all
}

// fence runs fence.lua for each view, in one round trip.
func (s *Store) fence(ctx context.Context, all []fencing) error {
	if len(all) == 0 {
		return nil
	}
	replies := make([]*redis.Cmd, len(all))
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, f := range all {
			replies[i] = call(ctx, p, &s.scripts.fence, []string{s.keys.view(f.view.Name)}, f.at.String(), f.mode)
		}
	})
	if err != nil {
		return fmt.Errorf("fence views: %w", err)
	}
	for i, f := range all {
		if changed, _ := replies[i].Int(); changed == 1 {
			s.log.Info().Str("view", f.view.Name).Stringer("version", f.at).Msg("view fenced")
		}
	}
	return nil
}

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
		if !known {
			continue
		}
		runIDs[v.Name] = strings.Trim(k.confirmed, "-")
	}
	return runIDs, nil
}
