package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/stream"
)

// ConfirmerOptions are the choices of a Confirmer. Keys, Groups and Relay are
// required.
type ConfirmerOptions struct {
	Keys   stream.Keys
	Groups map[string][]string // the groups that drop entries of these views, and their topics: what they must have caught up with: of the groups that end entries

	// Relay returns the run_id of the Redis in which the relay that leads, in
	// whichever process, has last found or written its position; "" for none.
	Relay func(ctx context.Context) (runID string, err error)

	Every time.Duration // between two looks while something is unconfirmed; 100 ms
	Log   zerolog.Logger
}

// Confirmer says when the entries that were there before a restart of Redis may
// be served as fresh again. A Redis that restarts or hands over may have lost
// its last writes, an invalidation among them:
//
//  1. it comes back with another run_id, so every older entry counts as stale;
//  2. the relay finds its position, which was lost together with what it had
//     sent since, and sends that again;
//  3. the groups work off what was in the streams by then;
//  4. so whatever was lost has been done again, and the views are confirmed.
//
// Every worker may run one; confirming twice does no harm.
type Confirmer struct {
	store *cache.Store
	views []*view.View
	o     ConfirmerOptions

	// Of the run_id that is being confirmed: when the relay was first seen to
	// have its position, and which groups have caught up since, in which topics.
	runID  string
	since  time.Time
	caught map[[2]string]bool
}

// idlePause is the time between two looks while everything is confirmed.
const idlePause = time.Second

// NewConfirmer makes a confirmer of these views' entries in store.
func NewConfirmer(store *cache.Store, views []*view.View, o ConfirmerOptions) (*Confirmer, error) {
	if o.Relay == nil || len(o.Groups) == 0 {
		return nil, errors.New("nothing can be confirmed without the relay's position and the groups")
	}
	if o.Every <= 0 {
		o.Every = 100 * time.Millisecond
	}
	return &Confirmer{store: store, views: views, o: o}, nil
}

// Run watches and confirms until the context ends. It may be called once.
func (c *Confirmer) Run(ctx context.Context) error {
	unwell := false
	for ctx.Err() == nil {
		done, err := c.look(ctx)
		if ctx.Err() == nil && (err != nil) != unwell {
			unwell = err != nil
			c.o.Log.Info().Err(err).Bool("working", !unwell).Msg("confirming views after restarts of redis")
		}
		pause := c.o.Every
		if done || err != nil {
			pause = idlePause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// look takes the next step and reports whether none is left.
func (c *Confirmer) look(ctx context.Context) (done bool, err error) {
	confirmed, err := c.store.Confirmed(ctx, c.views)
	if err != nil {
		return false, err
	}
	// After the round trip, whose connection may have been the first to a new
	// server.
	runID := c.store.RunID()
	if c.all(confirmed, runID) {
		return true, nil
	}
	if runID != c.runID {
		c.runID, c.since, c.caught = runID, time.Time{}, make(map[[2]string]bool)
	}
	if c.since.IsZero() {
		has, err := c.o.Relay(ctx)
		if err != nil || has != runID {
			return false, err
		}
		c.since = time.Now()
	}
	if ok, err := c.caughtUp(ctx); err != nil || !ok {
		return false, err
	}
	if err := c.store.Confirm(ctx, c.views, runID); err != nil {
		return false, err
	}
	c.o.Log.Info().Str("run_id", runID).Msg("views confirmed: nothing that redis may have lost is missing")
	return true, nil
}

func (c *Confirmer) all(confirmed map[string]string, runID string) bool {
	for _, v := range c.views {
		if runID == "" || confirmed[v.Name] != runID {
			return false
		}
	}
	return true
}

// caughtUp reports whether every group has done what was in its topics when the
// relay had its position. Under constant load no group has nothing at all to do;
// then its oldest entry being younger says the same.
func (c *Confirmer) caughtUp(ctx context.Context) (bool, error) {
	all := true
	for group, topics := range c.o.Groups {
		// Before Redis tells their ages, so that none seems younger than it is.
		asked := time.Now()
		states, err := stream.Groups(ctx, c.store.Client(), c.o.Keys, topics)
		if err != nil {
			return false, fmt.Errorf("look at the groups: %w", err)
		}
		known := make(map[string]stream.GroupState, len(topics))
		for _, state := range states {
			if state.Group == group {
				known[state.Topic] = state
			}
		}
		for _, topic := range topics {
			ok, err := c.caughtUpWith(ctx, group, topic, known, asked.Sub(c.since))
			if err != nil {
				return false, err
			}
			all = all && ok
		}
	}
	return all, nil
}

func (c *Confirmer) caughtUpWith(ctx context.Context, group, topic string, known map[string]stream.GroupState, since time.Duration) (bool, error) {
	id := [2]string{group, topic}
	if c.caught[id] {
		return true, nil
	}
	state, ok := known[topic]
	if !ok {
		// Without its stream the group has nothing to do; without the group,
		// everything.
		n, err := c.store.Client().Exists(ctx, c.o.Keys.Topic(topic)).Result()
		if err != nil {
			return false, fmt.Errorf("look for stream %s: %w", topic, err)
		}
		c.caught[id] = n == 0
		return n == 0, nil
	}
	idle := state.Lag == 0 && state.Pending == 0
	younger := state.OldestPending > 0 && state.OldestPending < since
	c.caught[id] = state.Parked == 0 && (idle || younger)
	return c.caught[id], nil
}
