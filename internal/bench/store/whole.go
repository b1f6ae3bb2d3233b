package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/bench/process"
	"mythiccache/producers/stream"
)

const (
	mostWrites = 6000 // of a round
	patience   = time.Minute
)

// whole is the program as relay and workers, with servers that sync to disk as real
// ones do.
type whole struct {
	*process.Deployment
	client *redis.Client
	topic  string // the stream of the books' changes
}

func newWhole(ctx context.Context, o gauge.Options) (w *whole, err error) {
	d, err := process.Deploy(ctx, process.Setup{
		Dir: filepath.Join(o.Dir, "whole"), Program: o.Program,
		Settings: map[string]string{
			"fsync": "on", "synchronous_commit": "on", "max_wal_size": "4GB", "checkpoint_timeout": "30min",
			"autovacuum": "off", // it comes between rounds, by hand
		},
		// An append-only file synced every second, which nobody rewrites in the middle of
		// a round. Redis tells of each string that is set.
		RedisArgs: []string{"--auto-aof-rewrite-percentage", "0", "--notify-keyspace-events", "K$"},
		Environ:   []string{"CACHE_PREFIX=" + prefix},
	})
	if err != nil {
		return nil, err
	}
	w = &whole{Deployment: d, topic: stream.NewKeys(prefix).Topic("books")}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close(ctx))
		}
	}()
	if w.client, err = dial(w.Redis, nil); err != nil {
		return w, err
	}
	if err := w.stock(ctx); err != nil {
		return w, err
	}
	_, err = w.Run("workers", "relay,workers")
	return w, err
}

// stock makes a book for each write of a round.
func (w *whole) stock(ctx context.Context) error {
	return w.exec(ctx, "ALTER TABLE books SET (fillfactor = 80)", // room for updates
		fmt.Sprintf("INSERT INTO users (id, clerk_user_id) SELECT "+id+", '%s' || n FROM generate_series(0, %d) AS n", "n", reader, mostWrites-1),
		fmt.Sprintf("INSERT INTO books (id, user_id, title) SELECT "+id+", "+id+", '' FROM generate_series(0, %d) AS n", "n", "n", mostWrites-1))
}

// neaten leaves neither server more to carry than a round before.
func (w *whole) neaten(ctx context.Context) error { return w.exec(ctx, "VACUUM books", "CHECKPOINT") }

func (w *whole) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := w.Conn.Exec(ctx, sql); err != nil {
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

// Close ends all of it.
func (w *whole) Close(ctx context.Context) error {
	var err error
	if w.client != nil {
		err = w.client.Close()
	}
	return errors.Join(err, w.Deployment.Close(ctx))
}
