package streams

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// bareCount is how many entries the bare loop reads at a time.
const bareCount = 500

// bare is a loop over XREADGROUP: read, handle, acknowledge.
func (b *bed) bare(topic string, of int, addr string, handle func(context.Context, []redis.XMessage) error) contestant {
	return contestant{name: "bare", of: of, do: func(ctx context.Context, done func(int)) error {
		client, err := b.dial(addr, nil)
		if err != nil {
			return err
		}
		defer client.Close()
		group := b.newGroup("bare")
		if err := client.XGroupCreate(ctx, streamOf(topic), group, "0").Err(); err != nil {
			return err
		}
		for ctx.Err() == nil {
			found, err := client.XReadGroup(ctx, &redis.XReadGroupArgs{
				Group: group, Consumer: "c", Streams: []string{streamOf(topic), ">"}, Count: bareCount, Block: time.Second,
			}).Result()
			if err != nil {
				if errors.Is(err, redis.Nil) || ctx.Err() != nil {
					continue
				}
				return err
			}
			entries := found[0].Messages
			if err := handle(ctx, entries); err != nil && ctx.Err() == nil {
				return err
			}
			ids := make([]string, len(entries))
			for i, entry := range entries {
				ids[i] = entry.ID
			}
			if err := client.XAck(ctx, streamOf(topic), group, ids...).Err(); err != nil && ctx.Err() == nil {
				return err
			}
			done(len(ids))
		}
		return nil
	}}
}
