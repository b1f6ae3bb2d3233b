package ai

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/bench/process"
	"mythiccache/internal/modelserver"
)

const (
	patience = time.Minute
	prefix   = "bench:"
	frugal   = "frugal" // the model that has a budget
	allowed  = 100      // its calls
)

// bed is the program in two processes, with servers of its own and a model.
type bed struct {
	*process.Deployment
	model   *modelserver.Server
	client  *redis.Client
	workers *process.Process
	api     *process.Face
	token   string // of a user
}

// newBed has servers that sync to disk as real ones do. Redis tells of each string that
// is set.
func newBed(ctx context.Context, o gauge.Options) (b *bed, err error) {
	b = &bed{model: modelserver.Start()}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close(ctx))
		}
	}()
	if b.Deployment, err = process.Deploy(ctx, process.Setup{
		Dir: o.Dir, Program: o.Program,
		Settings: map[string]string{
			"fsync": "on", "synchronous_commit": "on", "max_wal_size": "4GB", "checkpoint_timeout": "30min", "autovacuum": "off",
		},
		RedisArgs: []string{"--auto-aof-rewrite-percentage", "0", "--notify-keyspace-events", "K$"},
		Environ: []string{
			"CACHE_PREFIX=" + prefix, "LLM_BASE_URL=" + b.model.URL(), "LLM_MODEL=writer",
			fmt.Sprintf("AI_BUDGETS=%s=%d/1d; warm=100%%", frugal, allowed),
		},
	}); err != nil {
		return b, err
	}
	options, err := redis.ParseURL(b.Redis.URL())
	if err != nil {
		return b, fmt.Errorf("the address of Redis: %w", err)
	}
	b.client = redis.NewClient(options)
	if err := b.stock(ctx); err != nil {
		return b, err
	}
	if b.workers, err = b.Run("workers", "relay,workers"); err != nil {
		return b, err
	}
	if b.api, err = b.Serve(ctx, "api", "api"); err != nil {
		return b, err
	}
	b.token, err = b.Token("bench")
	return b, err
}

// await waits until something is so.
func await(ctx context.Context, what string, so func() error) error {
	begun := time.Now()
	for {
		err := so()
		if err == nil {
			return nil
		}
		if time.Since(begun) > patience || ctx.Err() != nil {
			return fmt.Errorf("%s: not within %s: %w", what, patience, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (b *bed) exec(ctx context.Context, sql string, args ...any) error {
	if _, err := b.Conn.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// Close ends the model before the processes that ask it.
func (b *bed) Close(ctx context.Context) error {
	var err error
	if b.client != nil {
		err = b.client.Close()
	}
	b.model.Close()
	if b.Deployment != nil {
		err = errors.Join(err, b.Deployment.Close(ctx))
	}
	return err
}
