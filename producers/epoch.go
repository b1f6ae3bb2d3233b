package producers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/cache/version"
	"mythiccache/producers/stream"
)

//go:embed epoch.sql
var epochSQL string

// errStandby says that the server is no primary, or not yet.
var errStandby = errors.New("the server is in recovery, and only a primary's snapshots can be compared")

// errSuperseded says that another relay took over on another primary, after a
// failover that left ours running, say. To begin an epoch here would let what ours
// says pass for newer than what the other says, and the other would do the same.
var errSuperseded = errors.New("another primary has taken over; if this one is right, begin an epoch by hand")

// present is the state of the database as a position must fit it.
type present struct {
	epoch     uint64 // 0: none has begun
	snapshot  version.Snapshot
	truncated uint64 // highest xid that was thrown away with its partition
}

func readPresent(ctx context.Context, conn *pgx.Conn) (present, error) {
	return scanPresent(conn.QueryRow(ctx, epochSQL))
}

func scanPresent(row pgx.Row) (present, error) {
	var epoch int64
	var recovery bool
	var snapshot, truncated string
	if err := row.Scan(&epoch, &recovery, &snapshot, &truncated); err != nil {
		return present{}, fmt.Errorf("read the epoch: %w", err)
	}
	if recovery {
		return present{}, errStandby
	}
	p := present{epoch: uint64(epoch)}
	var err error
	if p.snapshot, err = version.ParseSnapshot(p.epoch, snapshot); err != nil {
		return present{}, fmt.Errorf("read the epoch: %w", err)
	}
	if p.truncated, err = strconv.ParseUint(truncated, 10, 64); err != nil {
		return present{}, fmt.Errorf("read what was truncated: %w", err)
	}
	return p, nil
}

const beginEpochSQL = "SELECT mythic_cache.begin_epoch($1)"

// beginEpoch writes a new epoch, above the present one and Redis's.
func beginEpoch(ctx context.Context, conn *pgx.Conn, redisEpoch uint64) (uint64, error) {
	var epoch int64
	if err := conn.QueryRow(ctx, beginEpochSQL, int64(redisEpoch)+1).Scan(&epoch); err != nil {
		return 0, fmt.Errorf("begin an epoch: %w", err)
	}
	return uint64(epoch), nil
}

// BumpEpoch begins a new epoch: for a database that was copied while it was
// stopped, where nothing else tells the copy from the original. A relay then
// fences every view and sends the retained outbox again.
func BumpEpoch(ctx context.Context, conn *pgx.Conn, client redis.UniversalClient, keys stream.Keys) (epoch uint64, err error) {
	text, _, err := newStreams(client, keys).Look(ctx, "", fencings{})
	if err != nil {
		return 0, fmt.Errorf("bump the epoch: %w", err)
	}
	at, err := parsePosition(text)
	if text != "" && err != nil {
		return 0, fmt.Errorf("bump the epoch: %w", err)
	}
	if epoch, err = beginEpoch(ctx, conn, at.epoch); err != nil {
		return 0, fmt.Errorf("bump the epoch: %w", err)
	}
	return epoch, nil
}
