package stream

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// GroupState is how far one group is in one topic.
type GroupState struct {
	Group, Topic  string
	Length        int64         // entries in the stream
	Lag           int64         // entries that the group has not read yet
	Pending       int64         // read and not acknowledged
	OldestPending time.Duration // age of the oldest entry that the group has not acknowledged, by Redis's clock; 0 for none
	Parked        int64         // waiting to be tried again
	Consumers     int64
}

// Groups returns the states of all groups of the topics, in the order of the
// topics. A stream that does not exist has none.
func Groups(ctx context.Context, client redis.UniversalClient, keys Keys, topics []string) ([]GroupState, error) {
	return nil, nil
}
