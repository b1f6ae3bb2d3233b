package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"mythiccache/cache"
)

// stats are the figures of all processes together. Counts are sums since each
// process began.
type stats struct {
	Instances int                    `json:"instances"`
	Hits      uint64                 `json:"hits"`
	Misses    uint64                 `json:"misses"`
	Stale     uint64                 `json:"stale"`
	HitRate   float64                `json:"hit_rate"` // 0 to 1; 0 before the first read
	Views     map[string]viewStats   `json:"views"`
	Memory    memoryStats            `json:"memory"`
	Streams   map[string]streamStats `json:"streams"` // by topic
	Groups    map[string]groupStats  `json:"groups"`
	Relay     *relayStats            `json:"relay,omitempty"` // of the one that leads
	Staleness *cache.Quantiles       `json:"staleness,omitempty"`
	AI        *cache.AIReport        `json:"ai,omitempty"`
	AIScopes  []cache.ScopeCost      `json:"ai_scopes,omitempty"` // those that spent the most this month; for the operator
}

// scopesShown bounds them.
const scopesShown = 20

type viewStats struct {
	cache.ViewCounts
	HitRate float64 `json:"hit_rate"`
}

type memoryStats struct {
	Used int64 `json:"used"` // bytes
	Max  int64 `json:"max"`  // bytes; 0: no limit
}

type streamStats struct {
	Length int64                 `json:"length"`
	Groups map[string]topicStats `json:"groups"`
}

type topicStats struct {
	Lag             int64   `json:"lag"`
	Pending         int64   `json:"pending"`
	OldestPendingMS float64 `json:"oldest_pending_ms"`
}

type groupStats struct {
	Dead   int64 `json:"dead"`
	Parked int64 `json:"parked"`
}

type relayStats struct {
	Position    string    `json:"position"`
	Backlog     int64     `json:"backlog"`
	OutboxBytes int64     `json:"outbox_bytes"`
	LastDrainAt time.Time `json:"last_drain_at"`
}

// getStats sums what the processes report.
func (s *Server) getStats(x *exchange) error {
	ctx, cancel := context.WithTimeout(x.request.Context(), redisTimeout)
	defer cancel()
	begun := time.Now()
	reports, err := s.store.Reports(ctx)
	if err != nil {
		return x.cacheAway(err)
	}
	health, err := s.redisHealth(ctx)
	x.redis += time.Since(begun)
	if err != nil {
		return x.cacheAway(err)
	}
	s.back()
	all := summarize(s.withOwn(reports))
	all.Memory = memoryStats{Used: health.UsedMemory, Max: health.MaxMemory}
	if s.auth.administers(x.request) { // whose they are is more than a count
		if all.AIScopes, err = s.store.TopCosts(ctx, scopesShown); err != nil {
			return x.cacheAway(err)
		}
	}
	return x.json(http.StatusOK, all)
}

// withOwn puts this process's own counts, which are the newest, in place of what
// it reported some seconds ago.
func (s *Server) withOwn(reports []cache.Report) []cache.Report {
	own := s.store.Counts()
	for i := range reports {
		if s.o.Instance != "" && reports[i].Instance == s.o.Instance {
			reports[i].Views = own
			return reports
		}
	}
	return append(reports, cache.Report{Instance: s.o.Instance, Views: own})
}

// summarize makes one picture of many reports. What several processes say of the
// same thing in Redis is taken from the newest report.
func summarize(reports []cache.Report) stats {
	all := stats{
		Instances: len(reports), Views: map[string]viewStats{},
		Streams: map[string]streamStats{}, Groups: map[string]groupStats{},
	}
	slices.SortStableFunc(reports, func(a, b cache.Report) int { return a.At.Compare(b.At) })
	for _, r := range reports {
		for name, counts := range r.Views {
			v := all.Views[name]
			v.ViewCounts = v.Add(counts)
			all.Views[name] = v
		}
		for name, group := range r.Groups {
			all.addGroup(name, group)
		}
		if r.Relay != nil && r.Relay.Leader {
			all.Relay = &relayStats{Position: r.Relay.Position, Backlog: r.Relay.Backlog, OutboxBytes: r.Relay.OutboxBytes, LastDrainAt: r.Relay.LastDrain}
		}
		all.addStaleness(r.Staleness)
		all.addAI(r.AI)
	}
	for _, name := range slices.Collect(maps.Keys(all.Views)) {
		v := all.Views[name]
		v.HitRate = rate(v.Hits, v.Misses, v.Stale)
		all.Views[name] = v
		all.Hits += v.Hits
		all.Misses += v.Misses
		all.Stale += v.Stale
	}
	all.HitRate = rate(all.Hits, all.Misses, all.Stale)
	return all
}

func (s *stats) addGroup(name string, group cache.GroupReport) {
	s.Groups[name] = groupStats{Dead: group.Dead, Parked: group.Parked}
	for topic, t := range group.Topics {
		stream := s.Streams[topic]
		if stream.Groups == nil {
			stream.Groups = map[string]topicStats{}
		}
		stream.Length = t.Length
		stream.Groups[name] = topicStats{Lag: t.Lag, Pending: t.Pending, OldestPendingMS: milliseconds(t.OldestPending)}
		s.Streams[topic] = stream
	}
}

// addStaleness keeps the worst of each quantile: quantiles cannot be summed.
func (s *stats) addStaleness(q *cache.Quantiles) {
	if q == nil {
		return
	}
	if s.Staleness == nil {
		s.Staleness = &cache.Quantiles{}
	}
	s.Staleness.Count += q.Count
	s.Staleness.P50 = max(s.Staleness.P50, q.P50)
	s.Staleness.P99 = max(s.Staleness.P99, q.P99)
	s.Staleness.P999 = max(s.Staleness.P999, q.P999)
}

func (s *stats) addAI(r *cache.AIReport) {
	if r == nil {
		return
	}
	if s.AI == nil {
		s.AI = &cache.AIReport{}
	}
	s.AI.Calls += r.Calls
	s.AI.Hits += r.Hits
	s.AI.Failures += r.Failures
	s.AI.TokensSpent += r.TokensSpent
	s.AI.TokensSaved += r.TokensSaved
	s.AI.MoneySpent += r.MoneySpent
	s.AI.MoneySaved += r.MoneySaved
}

// rate is hits in all reads. A stale answer is no hit.
func rate(hits, misses, stale uint64) float64 {
	if hits+misses+stale == 0 {
		return 0
	}
	return float64(hits) / float64(hits+misses+stale)
}
