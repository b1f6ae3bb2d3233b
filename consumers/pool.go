package consumers

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// awayAfter is how long a server may take to answer a knock or a ping.
const awayAfter = 5 * time.Second

// NewPool makes the pool that the package's components share. PostgreSQL need
// not be up: each use connects as it can. The settings that loads depend on are
// not the pool's (see Loader), so that the URL may name a pgbouncer.
func NewPool(ctx context.Context, url string, maxConns int) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	if maxConns > 0 {
		config.MaxConns = int32(min(maxConns, 1000))
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "mythic-cache"
	}
	// A machine that hangs or has gone without a word is left soon.
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = awayAfter
	}
	if config.PingTimeout == 0 {
		config.PingTimeout = awayAfter
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("make the connection pool: %w", err)
	}
	return pool, nil
}
