package cache

import (
	"sync"
	"sync/atomic"
)

// ViewCounts says what one process did with the entries of one view.
type ViewCounts struct {
	Hits          uint64 `json:"hits"`
	Misses        uint64 `json:"misses"`
	Stale         uint64 `json:"stale"`
	Saves         uint64 `json:"saves"`
	Refused       uint64 `json:"refused"`
	Invalidations uint64 `json:"invalidations"`
}

// Add returns the sum of both.
func (c ViewCounts) Add(o ViewCounts) ViewCounts {
	return ViewCounts{
		Hits: c.Hits + o.Hits, Misses: c.Misses + o.Misses, Stale: c.Stale + o.Stale,
		Saves: c.Saves + o.Saves, Refused: c.Refused + o.Refused, Invalidations: c.Invalidations + o.Invalidations,
	}
}

// tally counts for one view.
type tally struct {
	hits, misses, stale, saves, refused, invalidations atomic.Uint64
}

func (t *tally) counts() ViewCounts {
	return ViewCounts{
		Hits: t.hits.Load(), Misses: t.misses.Load(), Stale: t.stale.Load(),
		Saves: t.saves.Load(), Refused: t.refused.Load(), Invalidations: t.invalidations.Load(),
	}
}

// counts keeps a tally of each view. Views are few: they are configured.
type counts struct {
	mu    sync.RWMutex
	views map[string]*tally
}

func (c *counts) of(view string) *tally {
	c.mu.RLock()
	t := c.views[view]
	c.mu.RUnlock()
	if t != nil {
		return t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.views == nil {
		c.views = map[string]*tally{}
	}
	if c.views[view] == nil {
		c.views[view] = &tally{}
	}
	return c.views[view]
}

// Counts returns what this process has counted since it began, by view.
func (s *Store) Counts() map[string]ViewCounts {
	s.counts.mu.RLock()
	defer s.counts.mu.RUnlock()
	all := make(map[string]ViewCounts, len(s.counts.views))
	for name, t := range s.counts.views {
		all[name] = t.counts()
	}
	return all
}
