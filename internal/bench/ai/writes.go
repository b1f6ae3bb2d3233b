package ai

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/writers"
)

const (
	reader  = "bench_"
	keyName = prefix + "user_books:{" + reader
	id      = "('00000000-0000-4000-9000-' || lpad((%s)::text, 12, '0'))::uuid"
)

// stock makes a book for each write of a round.
func (b *bed) stock(ctx context.Context) error {
	for _, sql := range []string{
		"ALTER TABLE books SET (fillfactor = 80)", // room for updates
		fmt.Sprintf("INSERT INTO users (id, clerk_user_id) SELECT "+id+", '%s' || n FROM generate_series(0, %d) AS n", "n", reader, writesOfRound-1),
		fmt.Sprintf("INSERT INTO books (id, user_id, title) SELECT "+id+", "+id+", '' FROM generate_series(0, %d) AS n", "n", "n", writesOfRound-1),
	} {
		if err := b.exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// write is when, since its round began, a commit returned and its key was fenced; 0 for
// not yet.
type write struct{ committed, fenced atomic.Int64 }

// follow makes so many writes at the rate, each of another key, and returns how long
// after each commit its key was fenced, in ms.
func (b *bed) follow(ctx context.Context, n int) ([]float64, error) {
	for _, sql := range []string{"VACUUM books", "CHECKPOINT"} { // no more to carry than a round before
		if err := b.exec(ctx, sql); err != nil {
			return nil, err
		}
	}
	writes, begun, left := make([]write, n), time.Now(), atomic.Int64{}
	left.Store(int64(n))
	heard := b.client.PSubscribe(ctx, "__keyspace@0__:"+keyName+"*")
	if _, err := heard.Receive(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for fences: %w", err), heard.Close())
	}
	var hearing sync.WaitGroup
	hearing.Go(func() {
		for message := range heard.Channel(redis.WithChannelSize(n + 1000)) {
			now := int64(time.Since(begun))
			_, key, _ := strings.Cut(message.Channel, "{"+reader)
			at, err := strconv.Atoi(strings.TrimSuffix(key, "}"))
			if err == nil && at < n && writes[at].fenced.CompareAndSwap(0, now) {
				left.Add(-1)
			}
		}
	})
	err := b.app(writes, begun).Run(ctx, n, writeRate)
	if err == nil {
		err = await(ctx, "all keys are fenced", func() error {
			if n := left.Load(); n > 0 {
				return errors.Join(fmt.Errorf("%d are not", n), b.Alive())
			}
			return nil
		})
	}
	err = errors.Join(err, heard.Close())
	hearing.Wait()
	late := make([]float64, n)
	for i := range writes {
		// What is there before its writer hears that it has committed is there at once.
		late[i] = float64(max(0, writes[i].fenced.Load()-writes[i].committed.Load())) / 1e6
	}
	return late, err
}

// app makes the writes.
func (b *bed) app(writes []write, begun time.Time) writers.App {
	update := "UPDATE books SET title = 'at ' || clock_timestamp() WHERE id = " + fmt.Sprintf(id, "$1::int")
	return writers.App{
		Connections: 8,
		Connect:     func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, b.Postgres.URL("postgres")) },
		Statement:   update,
		Write: func(ctx context.Context, conn *pgx.Conn, n int) error {
			if _, err := conn.Exec(ctx, update, n); err != nil {
				return fmt.Errorf("write %d: %w", n, err)
			}
			writes[n].committed.Store(int64(time.Since(begun)))
			return nil
		},
	}
}
