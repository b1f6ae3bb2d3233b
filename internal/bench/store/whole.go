package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/process"
	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

const (
	mostWrites = 6000 // of a round
	patience   = time.Minute
)

// whole is the program as relay and workers, with servers that sync to disk as real
// ones do.
type whole struct {
	url      string
	postgres *testserver.Postgres
	redis    *testserver.Redis
	conn     *pgx.Conn
	client   *redis.Client
	process  *process.Process
	topic    string // the stream of the books' changes
}

func newWhole(ctx context.Context, o Options) (w *whole, err error) {
	w = &whole{topic: stream.NewKeys(prefix).Topic("books")}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(ctx))
		}
	}()
	if w.postgres, err = testserver.StartPostgres(ctx, testserver.PostgresOptions{Dir: filepath.Join(o.Dir, "whole-postgres"), Settings: map[string]string{
		"fsync": "on", "synchronous_commit": "on", "max_wal_size": "4GB", "checkpoint_timeout": "30min",
		"autovacuum": "off", // it comes between rounds, by hand
	}}); err != nil {
		return w, err
	}
	// An append-only file synced every second, which nobody rewrites in the middle of
	// a round. Redis tells of each string that is set.
	if w.redis, err = testserver.StartRedis(ctx, testserver.RedisOptions{
		Dir: filepath.Join(o.Dir, "whole-redis"), Args: []string{"--auto-aof-rewrite-percentage", "0", "--notify-keyspace-events", "K$"},
	}); err != nil {
		return w, err
	}
	w.url = w.postgres.URL("postgres")
	if w.client, err = dial(w.redis, nil); err != nil {
		return w, err
	}
	if err := w.prepare(ctx, o); err != nil {
		return w, err
	}
	w.process, err = w.start(o, "run", "--roles", "relay,workers")
	return w, err
}

// prepare makes the tables and a book for each write of a round.
func (w *whole) prepare(ctx context.Context, o Options) error {
	for _, args := range [][]string{{"demo", "load"}, {"migrate", "up"}} {
		p, err := w.start(o, args...)
		if err != nil {
			return err
		}
		if err := p.Succeed(); err != nil {
			return err
		}
	}
	var err error
	if w.conn, err = pgx.Connect(ctx, w.url); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return w.exec(ctx, "ALTER TABLE books SET (fillfactor = 80)", // room for updates
		fmt.Sprintf("INSERT INTO users (id, clerk_user_id) SELECT "+id+", '%s' || n FROM generate_series(0, %d) AS n", "n", reader, mostWrites-1),
		fmt.Sprintf("INSERT INTO books (id, user_id, title) SELECT "+id+", "+id+", '' FROM generate_series(0, %d) AS n", "n", "n", mostWrites-1))
}

func (w *whole) start(o Options, args ...string) (*process.Process, error) {
	environ := append(os.Environ(), "DATABASE_URL="+w.url, "REDIS_URL="+w.redis.URL(), "CACHE_PREFIX="+prefix, "LOG_FORMAT=json", "HTTP_ADDR=127.0.0.1:0")
	return process.Start(filepath.Join(o.Dir, args[0]+".log"), environ, append([]string{o.Program}, args...)...)
}

// neaten leaves neither server more to carry than a round before.
func (w *whole) neaten(ctx context.Context) error { return w.exec(ctx, "VACUUM books", "CHECKPOINT") }

func (w *whole) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := w.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// pattern is the channel that tells of a key.
func (w *whole) pattern(key string) string { return "__keyspace@0__:" + name(key) }

// lastEntry returns the id that the next entry will come after.
func (w *whole) lastEntry(ctx context.Context) (string, error) {
	there, err := w.client.Exists(ctx, w.topic).Result()
	if err != nil || there == 0 {
		return "0", err
	}
	info, err := w.client.XInfoStream(ctx, w.topic).Result()
	if err != nil {
		return "", fmt.Errorf("look at %s: %w", w.topic, err)
	}
	return info.LastGeneratedID, nil
}

func (w *whole) close(ctx context.Context) error {
	var err error
	if w.process != nil {
		err = w.process.Stop()
	}
	if w.conn != nil {
		err = errors.Join(err, w.conn.Close(context.WithoutCancel(ctx)))
	}
	if w.client != nil {
		err = errors.Join(err, w.client.Close())
	}
	if w.redis != nil {
		w.redis.Stop()
	}
	if w.postgres != nil {
		w.postgres.Stop()
	}
	return err
}
