package stream

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// Dial makes a Redis client of the caller's own, which the caller closes.
// onConnect, which may be nil, runs on each new connection of it.
type Dial func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error)

// Keys forms the names of everything that lives beside the streams in Redis. All
// of them share one hash slot, so that a script may touch several.
type Keys struct{ root string }

// NewKeys returns the names under a prefix such as "mythic:".
func NewKeys(prefix string) Keys { return Keys{root: prefix + "{stream}:"} }

// Topic is the stream of one topic.
func (k Keys) Topic(topic string) string { return k.root + topic }

// Dead is the stream of dead letters, of all groups and topics.
func (k Keys) Dead() string { return k.root + "dead" }

// Position is where the relay keeps how far it has read.
func (k Keys) Position() string { return k.root + "position" }

// Parked is the sorted set of the events of one topic that one group will try
// again, by due time in Unix milliseconds. Its members are the ids of their
// stream entries.
func (k Keys) Parked(group, topic string) string { return k.root + "parked:" + group + ":" + topic }

// ParkedEntries is the hash of what was parked, by the same ids.
func (k Keys) ParkedEntries(group, topic string) string { return k.Parked(group, topic) + ":entries" }
