package cache

import (
	"context"
	"errors"
	"fmt"
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
	confirmed string // empty where nobody has yet
}

// unconfirmed is what fence.lua writes in place of a run_id.
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
	k := viewKey{fence: fence}
	if runID := text[1+version.Len:]; runID != unconfirmed {
		k.confirmed = runID
	}
	return k, true
}

// What fence.lua does where the view's key is already there.
const (
	fenceRaise  = "raise"  // raises the fence
	fenceCreate = "create" // leaves it alone
)

// Fence invalidates every entry of a view that is older than at. A fence never
// goes down. Of a model's view a zero version means now, by the clock of Redis.
func (s *Store) Fence(ctx context.Context, v *view.View, at version.Version) error {
	_, err := s.RaiseFence(ctx, v, at)
	return err
}

// RaiseFence is Fence, and reports whether the fence was below.
func (s *Store) RaiseFence(ctx context.Context, v *view.View, at version.Version) (rose bool, err error) {
	if at.IsZero() {
		if !v.Model {
			return false, fmt.Errorf("fence %s: no version", v.Name)
		}
		now, err := s.now(ctx)
		if err != nil {
			return false, fmt.Errorf("fence %s: %w", v.Name, err)
		}
		// The microsecond puts the fence above a lease taken at this very moment.
		at = version.At(now.Add(time.Microsecond))
	}
	changed, err := s.fence(ctx, []fencing{{v, at, fenceRaise}})
	return changed > 0, err
}

// FenceAll invalidates every entry older than at of all views that are loaded
// from PostgreSQL, and makes the keys of views that lack theirs.
func (s *Store) FenceAll(ctx context.Context, views []*view.View, at version.Version) error {
	_, err := s.fence(ctx, fencings(views, at, fenceRaise))
	return err
}

// EnsureViews makes the keys of views that lack theirs, fenced at the version,
// and leaves the others as they are. A model's view is fenced at zero.
func (s *Store) EnsureViews(ctx context.Context, views []*view.View, at version.Version) error {
	_, err := s.fence(ctx, fencings(views, at, fenceCreate))
	return err
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

// fence runs fence.lua for each view, in one round trip, and returns for how many it
// did something.
func (s *Store) fence(ctx context.Context, all []fencing) (changed int, err error) {
	if len(all) == 0 {
		return 0, nil
	}
	replies := make([]*redis.Cmd, len(all))
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, f := range all {
			replies[i] = call(ctx, p, &s.scripts.fence, []string{s.keys.view(f.view.Name)}, f.at.String(), f.mode)
		}
	})
	if err != nil {
		return 0, fmt.Errorf("fence views: %w", err)
	}
	for i, f := range all {
		if did, _ := replies[i].Int(); did == 1 {
			changed++
			s.log.Debug().Str("view", f.view.Name).Stringer("version", f.at).Msg("view fenced")
		}
	}
	return changed, nil
}
