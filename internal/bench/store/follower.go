package store

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
	"mythiccache/producers/event"
)

const (
	connections = 16 // that an app has
	reader      = "bench_"
	id          = "('00000000-0000-4000-9000-' || lpad((%s)::text, 12, '0'))::uuid"
)

// follower writes at a steady rate, whether or not what it wrote before has arrived,
// and notes when each write's entry and its key's fence are there. Write n changes
// the book of reader n.
type follower struct {
	w      *whole
	begun  time.Time
	writes []write
	left   atomic.Int64  // entries and fences that have not come
	all    chan struct{} // closed when none is left
}

// write is when, since the follower began, a commit returned and what it leads to
// came; 0 for not yet.
type write struct{ committed, entry, fence atomic.Int64 }

// came is when it came, for each write, in ms.
type came struct{ entry, fence, between []float64 }

// follow writes for so many seconds and waits until all has come.
func (w *whole) follow(ctx context.Context, rate, seconds int) (came, error) {
	f := &follower{w: w, begun: time.Now(), writes: make([]write, rate*seconds), all: make(chan struct{})}
	f.left.Store(int64(2 * len(f.writes)))
	heard := w.client.PSubscribe(ctx, w.pattern("*"))
	if _, err := heard.Receive(ctx); err != nil {
		return came{}, errors.Join(fmt.Errorf("listen for fences: %w", err), heard.Close())
	}
	last, err := w.lastEntry(ctx)
	if err != nil {
		return came{}, errors.Join(err, heard.Close())
	}
	reading, enough := context.WithCancel(ctx)
	var hearing sync.WaitGroup
	hearing.Go(func() { f.hear(heard) })
	read := make(chan error, 1)
	go func() { read <- f.read(reading, last) }()
	err = f.app().Run(ctx, len(f.writes), rate)
	if err == nil {
		err = f.wait(ctx)
	}
	enough()
	err = errors.Join(err, heard.Close(), <-read)
	hearing.Wait()
	return f.came(), err
}

// wait returns when all has come.
func (f *follower) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-f.all:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d of %d entries and fences never came: %w; %w", f.left.Load(), 2*len(f.writes), context.Cause(ctx), f.w.Alive())
	}
}

// app makes the writes.
func (f *follower) app() writers.App {
	update := "UPDATE books SET title = 'at ' || clock_timestamp() WHERE id = " + fmt.Sprintf(id, "$1::int")
	return writers.App{
		Connections: connections,
		Connect:     func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, f.w.Postgres.URL("postgres")) },
		Statement:   update,
		Write: func(ctx context.Context, conn *pgx.Conn, n int) error {
			tag, err := conn.Exec(ctx, update, n)
			if err != nil || tag.RowsAffected() != 1 {
				return fmt.Errorf("write %d changed %d rows: %w", n, tag.RowsAffected(), err)
			}
			f.writes[n].committed.Store(int64(time.Since(f.begun)))
			return nil
		},
	}
}

// hear notes when fences are set, until the subscription is closed.
func (f *follower) hear(heard *redis.PubSub) {
	for message := range heard.Channel(redis.WithChannelSize(len(f.writes) + 1000)) {
		key, _, _ := strings.Cut(strings.TrimPrefix(message.Channel, strings.TrimSuffix(f.w.pattern(""), "}")), "}")
		f.note(key, func(w *write) *atomic.Int64 { return &w.fence })
	}
}

// read notes when entries can be read, until the context ends.
func (f *follower) read(ctx context.Context, last string) error {
	for ctx.Err() == nil {
		found, err := f.w.client.XRead(context.WithoutCancel(ctx), &redis.XReadArgs{
			Streams: []string{f.w.topic, last}, Count: 1000, Block: 50 * time.Millisecond,
		}).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", f.w.topic, err)
		}
		for _, entry := range found[0].Messages {
			last = entry.ID
			subject, _ := entry.Values[event.FieldSubject].(string)
			f.note(subject, func(w *write) *atomic.Int64 { return &w.entry })
		}
	}
	return nil
}

// note notes that what a reader's write leads to has come, if it is the first time.
func (f *follower) note(user string, what func(*write) *atomic.Int64) {
	now := int64(time.Since(f.begun))
	number, ours := strings.CutPrefix(user, reader)
	n, err := strconv.Atoi(number)
	if !ours || err != nil || n < 0 || n >= len(f.writes) || !what(&f.writes[n]).CompareAndSwap(0, now) {
		return
	}
	if f.left.Add(-1) == 0 {
		close(f.all)
	}
}

// came is what came of writes that all have come. What is there before its writer
// hears that it has committed is there at once.
func (f *follower) came() came {
	var c came
	for i := range f.writes {
		w := &f.writes[i]
		committed, entry, fence := w.committed.Load(), w.entry.Load(), w.fence.Load()
		c.entry = append(c.entry, ms(max(0, entry-committed)))
		c.fence = append(c.fence, ms(max(0, fence-committed)))
		c.between = append(c.between, ms(fence-entry))
	}
	return c
}

func ms(ns int64) float64 { return time.Duration(ns).Seconds() * 1000 }
