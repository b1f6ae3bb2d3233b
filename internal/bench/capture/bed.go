package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// applicationName is of the benchmark's own sessions.
const applicationName = "bench"

// bed is the servers and the contestants.
type bed struct {
	dir      string
	program  string // the one that is measured
	self     string // this one
	postgres *testserver.Postgres
	redis    *testserver.Redis
	client   *redis.Client
	log      io.Writer
	filled   rows

	none, ours, bare *contestant
}

// newBed starts servers that sync to disk as real ones do, and installs the
// contestants. None of their processes runs yet.
func newBed(ctx context.Context, o gauge.Options) (b *bed, err error) {
	b = &bed{dir: o.Dir, log: o.Log}
	if b.program, err = copyProgram(o.Program, o.Dir); err != nil {
		return nil, err
	}
	if b.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close(ctx))
		}
	}()
	b.postgres, err = testserver.StartPostgres(ctx, testserver.PostgresOptions{Dir: filepath.Join(o.Dir, "postgres"), Settings: map[string]string{
		"fsync": "on", "synchronous_commit": "on", "shared_buffers": "256MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min",
		// Vacuum and checkpoints come between rounds, by hand, and not within one.
		"autovacuum": "off",
		// For the statements that an idle relay runs.
		"logging_collector": "on", "log_destination": "jsonlog", "log_directory": "log", "log_timezone": "UTC",
	}})
	if err != nil {
		return b, err
	}
	// An append-only file synced every second, which nobody rewrites in the middle of a round.
	b.redis, err = testserver.StartRedis(ctx, testserver.RedisOptions{
		Dir: filepath.Join(o.Dir, "redis"), Args: []string{"--auto-aof-rewrite-percentage", "0"},
	})
	if err != nil {
		return b, err
	}
	options, err := redis.ParseURL(b.redis.URL())
	if err != nil {
		return b, fmt.Errorf("the address of Redis: %w", err)
	}
	options.ReadTimeout = time.Minute // a million entries take their time
	b.client = redis.NewClient(options)
	if b.none, err = b.newContestant(ctx, "none", "none:"); err != nil {
		return b, err
	}
	if b.ours, err = b.newOurs(ctx); err != nil {
		return b, err
	}
	if b.bare, err = b.newBare(ctx); err != nil {
		return b, err
	}
	return b, nil
}

// copyProgram keeps the program as it is now: it is started many times, and
// another may be built meanwhile.
func copyProgram(from, dir string) (string, error) {
	text, err := os.ReadFile(from)
	if err != nil {
		return "", fmt.Errorf("read the program: %w", err)
	}
	to := filepath.Join(dir, filepath.Base(from))
	if err := os.WriteFile(to, text, 0o755); err != nil {
		return "", fmt.Errorf("copy the program: %w", err)
	}
	return to, nil
}

// newContestant makes a database with Mythic's tables.
func (b *bed) newContestant(ctx context.Context, name, prefix string) (*contestant, error) {
	admin, err := connect(ctx, b.postgres.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return nil, fmt.Errorf("make database %s: %w", name, err)
	}
	c := &contestant{
		name: name, url: b.postgres.URL(name), client: b.client, keys: stream.NewKeys(prefix), markSeen: "0",
		log: filepath.Join(b.dir, name+".log"),
	}
	if err := b.command(ctx, c, "demo", "load"); err != nil {
		return nil, err
	}
	c.conn, err = connect(ctx, c.url)
	return c, err
}

// newOurs is the program as it ships.
func (b *bed) newOurs(ctx context.Context) (*contestant, error) {
	c, err := b.newContestant(ctx, "ours", "mythic:")
	if err != nil {
		return nil, err
	}
	c.mark, c.listens = "SELECT mythic_cache.publish('bench.marked', $1)", "mythic-cache relay"
	c.empty = "TRUNCATE mythic_cache.outbox"
	c.arguments, c.environ = []string{b.program, "run", "--roles", "relay"}, b.environ(c)
	if err := b.command(ctx, c, "migrate", "up"); err != nil {
		return nil, errors.Join(err, c.conn.Close(ctx))
	}
	return c, nil
}

func (b *bed) environ(c *contestant) []string {
	return []string{"DATABASE_URL=" + c.url, "REDIS_URL=" + b.redis.URL(), "CACHE_PREFIX=mythic:"}
}

// command runs a command of the program's on a contestant's database.
func (b *bed) command(ctx context.Context, c *contestant, args ...string) error {
	cmd := exec.CommandContext(ctx, b.program, args...)
	cmd.Env = b.environ(c)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// all returns the contestants.
func (b *bed) all() []*contestant { return []*contestant{b.none, b.ours, b.bare} }

// run has the processes of these contestants run, and no others.
func (b *bed) run(ctx context.Context, these ...*contestant) error {
	for _, c := range b.all() {
		wanted := false
		for _, other := range these {
			wanted = wanted || c == other
		}
		switch {
		case c.process != nil && !wanted:
			if err := c.stop(); err != nil {
				return err
			}
		case c.process == nil && wanted:
			if err := c.start(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close ends all that was started, also where the context has ended.
func (b *bed) Close(ctx context.Context) error {
	var err error
	for _, c := range b.all() {
		if c == nil {
			continue
		}
		err = errors.Join(err, c.stop())
		if c.conn != nil {
			err = errors.Join(err, c.conn.Close(context.WithoutCancel(ctx)))
		}
	}
	if b.client != nil {
		err = errors.Join(err, b.client.Close())
	}
	if b.redis != nil {
		b.redis.Stop()
	}
	if b.postgres != nil {
		b.postgres.Stop()
	}
	return err
}

func (b *bed) sayf(format string, args ...any) {
	fmt.Fprintf(b.log, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	config.RuntimeParams["application_name"] = applicationName
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}
