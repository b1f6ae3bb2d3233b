package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Report is what one process says about itself every few seconds. Whoever shows
// the state of the whole reads all of them from Redis.
type Report struct {
	Instance  string                 `json:"instance"`
	Roles     []string               `json:"roles"`
	At        time.Time              `json:"at"`
	Views     map[string]ViewCounts  `json:"views,omitempty"`
	Groups    map[string]GroupReport `json:"groups,omitempty"`
	Relay     *RelayReport           `json:"relay,omitempty"`
	Staleness *Quantiles             `json:"staleness,omitempty"` // of entries that changes ended: from the writing of the row to their end
	AI        *AIReport              `json:"ai,omitempty"`
}

// GroupReport is the state of one consumer group.
type GroupReport struct {
	Topics map[string]TopicReport `json:"topics,omitempty"`
	Dead   int64                  `json:"dead"`   // dead letters of the group
	Parked int64                  `json:"parked"` // events that wait for another attempt
}

// TopicReport is how far one group is with one topic.
type TopicReport struct {
	Length        int64         `json:"length"` // entries in the stream
	Lag           int64         `json:"lag"`    // entries not yet read
	Pending       int64         `json:"pending"`
	OldestPending time.Duration `json:"oldest_pending_ns"`
}

// RelayReport is the state of a relay.
type RelayReport struct {
	Leader      bool      `json:"leader"`
	Position    string    `json:"position"`
	Backlog     int64     `json:"backlog"`
	OutboxBytes int64     `json:"outbox_bytes"` // on disk, with what was sent and is kept
	LastDrain   time.Time `json:"last_drain"`
}

// Quantiles of a duration, in seconds.
type Quantiles struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
}

// AIReport is what the model cost and what the cache saved.
type AIReport struct {
	Calls       uint64  `json:"calls"`
	Hits        uint64  `json:"hits"`
	Failures    uint64  `json:"failures"`
	TokensSpent uint64  `json:"tokens_spent"`
	TokensSaved uint64  `json:"tokens_saved"`
	MoneySpent  float64 `json:"money_spent"`
	MoneySaved  float64 `json:"money_saved"`
}

// reportTTL is how long a process that has gone silent is still shown.
const reportTTL = 30 * time.Second

// PutReport publishes a process's report for the next 30 seconds.
func (s *Store) PutReport(ctx context.Context, r Report) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("put report: %w", err)
	}
	now := s.peer.now()
	index := s.keys.reports()
	// Together or not at all, so that the index is never left without its TTL.
	_, err = s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.ZAdd(ctx, index, redis.Z{Score: float64(now.Add(reportTTL).UnixMilli()), Member: r.Instance})
		p.ZRemRangeByScore(ctx, index, "-inf", strconv.FormatInt(now.UnixMilli(), 10))
		p.PExpire(ctx, index, 2*reportTTL)
		return nil
	})
	if err != nil {
		return fmt.Errorf("put report: %w", err)
	}
	if err := s.client.Set(ctx, s.keys.report(r.Instance), body, reportTTL).Err(); err != nil {
		return fmt.Errorf("put report: %w", err)
	}
	return nil
}

// Reports returns the reports of all processes that are alive, by instance.
func (s *Store) Reports(ctx context.Context) ([]Report, error) {
	instances, err := s.client.ZRange(ctx, s.keys.reports(), 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("read reports: %w", err)
	}
	slices.Sort(instances)
	if len(instances) == 0 {
		return nil, nil
	}
	bodies := make([]*redis.StringCmd, len(instances))
	err = s.pipeline(ctx, func(p redis.Pipeliner) {
		for i, instance := range instances {
			bodies[i] = p.Get(ctx, s.keys.report(instance))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read reports: %w", err)
	}
	var reports []Report
	for i, body := range bodies {
		var r Report
		if body.Err() != nil {
			continue // it has expired: the process has gone
		}
		if err := json.Unmarshal([]byte(body.Val()), &r); err != nil {
			s.log.Debug().Err(err).Str("instance", instances[i]).Msg("report not understood")
			continue
		}
		reports = append(reports, r)
	}
	return reports, nil
}
