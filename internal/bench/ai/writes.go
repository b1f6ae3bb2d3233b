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
)

const (
	writers = 8
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
	err := b.writeAll(ctx, writes, begun)
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

// writeAll commits at the rate, on some connections.
func (b *bed) writeAll(ctx context.Context, writes []write, begun time.Time) error {
	due := make(chan int, len(writes)) // a late commit holds up no other
	failed := make(chan error, writers)
	var ready, done sync.WaitGroup
	ready.Add(writers)
	for range writers {
		done.Go(func() {
			conn, err := pgx.Connect(ctx, b.Postgres.URL("postgres"))
			ready.Done()
			if err != nil {
				failed <- fmt.Errorf("connect: %w", err)
				return
			}
			defer conn.Close(context.WithoutCancel(ctx))
			for n := range due {
				if _, err := conn.Exec(ctx, "UPDATE books SET title = 'at ' || clock_timestamp() WHERE id = "+fmt.Sprintf(id, "$1::int"), n); err != nil {
					failed <- fmt.Errorf("write %d: %w", n, err)
					return
				}
				writes[n].committed.Store(int64(time.Since(begun)))
			}
		})
	}
	ready.Wait()
	first := time.Now()
	for n := range writes {
		time.Sleep(time.Until(first.Add(time.Duration(n) * time.Second / writeRate)))
		due <- n
	}
	close(due)
	done.Wait()
	close(failed)
	return errors.Join(<-failed)
}
