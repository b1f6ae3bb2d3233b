package stream

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// GroupState is how far one group is in one topic.
type GroupState struct {
	Group, Topic  string
	Length        int64         // entries in the stream
	Lag           int64         // entries that the group has not read yet
	Pending       int64         // read and not acknowledged
	OldestPending time.Duration // age of the oldest entry that the group has not acknowledged, read or not, by Redis's clock; 0 for none
	Parked        int64         // waiting to be tried again
	Consumers     int64
}

// lagMost bounds the count of what a group has not read where Redis itself does
// not know it, after entries were deleted.
const lagMost = 1000

// Groups returns the states of all groups of the topics, in the order of the
// topics. A stream that does not exist has none.
func Groups(ctx context.Context, client redis.UniversalClient, keys Keys, topics []string) ([]GroupState, error) {
	type reply struct {
		length *redis.IntCmd
		groups *redis.XInfoGroupsCmd
	}
	pipe := client.Pipeline()
	clock := pipe.Time(ctx)
	replies := make([]reply, len(topics))
	for i, topic := range topics {
		replies[i] = reply{pipe.XLen(ctx, keys.Topic(topic)), pipe.XInfoGroups(ctx, keys.Topic(topic))}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	now, err := clock.Result()
	if err != nil {
		return nil, fmt.Errorf("read the state of groups: %w", err)
	}
	var states []GroupState
	for i, topic := range topics {
		groups, err := replies[i].groups.Result()
		if err != nil {
			if strings.Contains(err.Error(), "no such key") {
				continue
			}
			return nil, fmt.Errorf("read the groups of %s: %w", topic, err)
		}
		for _, g := range groups {
			s := GroupState{
				Group: g.Name, Topic: topic, Length: replies[i].length.Val(),
				Lag: g.Lag, Pending: g.Pending, Consumers: g.Consumers,
			}
			if err := s.complete(ctx, client, keys, g.LastDeliveredID, now); err != nil {
				return nil, fmt.Errorf("read group %s of %s: %w", g.Name, topic, err)
			}
			states = append(states, s)
		}
	}
	return states, nil
}

// complete adds what XINFO does not say.
func (s *GroupState) complete(ctx context.Context, client redis.UniversalClient, keys Keys, read string, now time.Time) error {
	pipe := client.Pipeline()
	parked := pipe.ZCard(ctx, keys.Parked(s.Group, s.Topic))
	pending := pipe.XPending(ctx, keys.Topic(s.Topic), s.Group)
	var unread *redis.XMessageSliceCmd
	switch {
	case s.Lag < 0:
		unread = pipe.XRangeN(ctx, keys.Topic(s.Topic), "("+read, "+", lagMost)
	case s.Lag > 0:
		unread = pipe.XRangeN(ctx, keys.Topic(s.Topic), "("+read, "+", 1)
	}
	if _, err := pipe.Exec(ctx); err != nil && !vanished(err) {
		return err
	}
	s.Parked = parked.Val()
	if p := pending.Val(); p != nil && p.Count > 0 {
		s.OldestPending = now.Sub(addedAt(p.Lower))
	}
	if unread == nil {
		return nil
	}
	entries := unread.Val()
	if s.Lag < 0 {
		s.Lag = int64(len(entries))
	}
	if len(entries) > 0 {
		s.OldestPending = max(s.OldestPending, now.Sub(addedAt(entries[0].ID)))
	}
	return nil
}
