package streams

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/bench/process"
	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

const (
	waitingEvents = 1_000_000
	mostMemory    = 80 << 20 // bytes
)

// memory is what the workers, as they ship, take while they work off a backlog.
func memory(ctx context.Context, b *bed) ([]gauge.Line, error) {
	postgres, err := testserver.StartPostgres(ctx, testserver.PostgresOptions{Dir: filepath.Join(b.o.Dir, "postgres")})
	if err != nil {
		return nil, err
	}
	defer postgres.Stop()
	environ := append(os.Environ(), "DATABASE_URL="+postgres.URL("postgres"), "REDIS_URL="+b.redis.URL(), "CACHE_PREFIX="+prefix, "LOG_FORMAT=json")
	if err := process.Prepare(filepath.Join(b.o.Dir, "prepare.log"), b.o.Program, environ); err != nil {
		return nil, err
	}
	if err := errors.Join(b.empty(ctx), b.fill(ctx, topic, waitingEvents, 100_000, stream.WirePlain)); err != nil {
		return nil, err
	}
	p, err := process.Start(filepath.Join(b.o.Dir, "workers.log"), environ, b.o.Program, "run", "--roles", "workers")
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	for drained := false; !drained; {
		if err := p.Alive(); err != nil {
			return nil, err
		}
		if time.Since(begun) > patience {
			return nil, errors.Join(fmt.Errorf("%d events are not worked off within %s", waitingEvents, patience), p.Stop())
		}
		time.Sleep(50 * time.Millisecond)
		if drained, err = b.drained(ctx, "invalidate"); err != nil {
			return nil, errors.Join(err, p.Stop())
		}
	}
	took := time.Since(begun)
	now, highest, err := gauge.Memory(p.PID())
	if err := errors.Join(err, p.Stop()); err != nil {
		return nil, err
	}
	return []gauge.Line{{
		Figure: "memory with 1,000,000 events waiting", Reach: "< 80 MB RSS", Measured: fmt.Sprintf("%.0f MB at the highest", float64(highest)/(1<<20)), Reached: highest < mostMemory,
		Notes: []string{fmt.Sprintf("the program with every group; %.0f MB at the end, %.1f s after its start", float64(now)/(1<<20), took.Seconds())},
	}}, nil
}

// drained reports whether a group has acknowledged all there is.
func (b *bed) drained(ctx context.Context, group string) (bool, error) {
	groups, err := b.client.XInfoGroups(ctx, streamOf(topic)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, err
	}
	for _, g := range groups {
		if g.Name == group {
			return g.Lag == 0 && g.Pending == 0 && g.EntriesRead > 0, nil
		}
	}
	return false, nil
}
