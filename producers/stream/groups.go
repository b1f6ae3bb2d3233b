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
	Acknowledged  int64         // ever; where Redis does not know it, something that changes with it
	Oldest        string        // id of the oldest entry that the group has not acknowledged, read or not; "" for none
	OldestPending time.Duration // its age by Redis's clock; 0 for none
	Parked        int64         // waiting to be tried again
	Consumers     int64
}

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
	execute(ctx, pipe)
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
				Lag: g.Lag, Pending: g.Pending, Acknowledged: acknowledged(g), Consumers: g.Consumers,
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
	unread := pipe.Eval(ctx, unreadScript, []string{keys.Topic(s.Topic)}, read, lagMost(s.Lag))
	if _, err := pipe.Exec(ctx); err != nil && !vanished(err) {
		return err
	}
	s.Parked = parked.Val()
	if first, _ := unread.Val().([]any); len(first) == 2 {
		if count, _ := first[0].(int64); s.Lag < 0 {
			s.Lag = count
		}
		s.Oldest, _ = first[1].(string)
	}
	if p := pending.Val(); p != nil && p.Count > 0 {
		s.Oldest = p.Lower
	}
	if s.Oldest != "" {
		s.OldestPending = max(now.Sub(addedAt(s.Oldest)), 0)
	}
	return nil
}

// lagMost bounds the count of what a group has not read where Redis itself does
// not know it, after entries were deleted.
func lagMost(known int64) int {
	if known < 0 {
		return 1000
	}
	return 1
}

// acknowledged is how many entries a group has read and answered. After entries were
// deleted Redis may not know how many were read; then it is the time in the newest
// one's id instead.
func acknowledged(g redis.XInfoGroup) int64 {
	if g.EntriesRead == 0 {
		return addedAt(g.LastDeliveredID).UnixMilli() - g.Pending
	}
	return g.EntriesRead - g.Pending
}

// Holder returns which consumer of a group has an entry, and how long ago it last
// showed that it lives; "" where nobody has it.
func Holder(ctx context.Context, client redis.UniversalClient, keys Keys, of GroupTopic, entry string) (string, time.Duration, error) {
	found, err := client.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: keys.Topic(of.Topic), Group: of.Group, Start: entry, End: entry, Count: 1,
	}).Result()
	if err != nil && !vanished(err) {
		return "", 0, fmt.Errorf("look who has %s of %s: %w", entry, of.Topic, err)
	}
	if len(found) == 0 {
		return "", 0, nil
	}
	return found[0].Consumer, found[0].Idle, nil
}
