package stream

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Retire destroys a group in those of the topics in which it shows no sign of life: none
// of its consumers for so long, as Redis counts. It is for topics that nobody is to read
// any more for the group, which would keep what it has not read from being trimmed for
// ever. It returns the topics.
//
// Should somebody read for it after all, the group is created again and reads all that
// is there; what was trimmed meanwhile it never sees.
func Retire(ctx context.Context, client redis.UniversalClient, keys Keys, group string, topics []string, after time.Duration) ([]string, error) {
	var retired []string
	for _, topic := range topics {
		idle, err := idleGroup(ctx, client, keys.Topic(topic), group, after)
		if err == nil && idle {
			_, err = client.Pipelined(ctx, func(p redis.Pipeliner) error {
				p.XGroupDestroy(ctx, keys.Topic(topic), group)
				p.Del(ctx, keys.Parked(group, topic))
				return nil
			})
			retired = append(retired, topic)
		}
		if err != nil {
			return retired, fmt.Errorf("retire group %s of %s: %w", group, topic, err)
		}
	}
	return retired, nil
}

// idleGroup reports whether a stream has a group that has been idle for so long.
func idleGroup(ctx context.Context, client redis.UniversalClient, key, group string, after time.Duration) (bool, error) {
	groups, err := client.XInfoGroups(ctx, key).Result()
	if err != nil && strings.Contains(err.Error(), "no such key") {
		return false, nil
	}
	if err != nil || !slices.ContainsFunc(groups, func(g redis.XInfoGroup) bool { return g.Name == group }) {
		return false, err
	}
	consumers, err := client.XInfoConsumers(ctx, key, group).Result()
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(consumers, func(c redis.XInfoConsumer) bool { return c.Idle < after }), nil
}
