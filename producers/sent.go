package producers

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/version"
	"mythiccache/producers/stream"
)

// Sent returns a snapshot, of which every row of the outbox that it sees is in the
// streams, or was: the relay's position as Redis has it. It is zero where there is
// none, and all is to be sent again.
func Sent(ctx context.Context, client redis.UniversalClient, keys stream.Keys) (version.Snapshot, error) {
	text, err := client.HGet(ctx, keys.Position(), "position").Result()
	if errors.Is(err, redis.Nil) {
		return version.Snapshot{}, nil
	}
	if err != nil {
		return version.Snapshot{}, fmt.Errorf("read the position: %w", err)
	}
	at, err := parsePosition(text)
	return at.seen, err
}
