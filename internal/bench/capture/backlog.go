package capture

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/gauge"
	"mythiccache/producers/event"
)

// backlog is rows that wait in the outbox while no relay runs.
type backlog struct {
	name  string
	topic string
	write string                  // inserts the rows $1 to $2
	row   func(n int) event.Event // what row n becomes
}

func backlogs() []backlog {
	at := time.Now().UTC().Truncate(time.Microsecond)
	return []backlog{
		{
			name: "published events", topic: "waiting",
			write: `INSERT INTO mythic_cache.outbox (type, subject, event_id, data)
				SELECT 'waiting.event', 'subject ' || n, gen_random_uuid(), jsonb_build_object('n', n) FROM generate_series($1::int, $2::int) AS n`,
			row: func(n int) event.Event {
				return event.Event{
					ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), Type: "waiting.event", Source: "postgres",
					Subject: "subject " + strconv.Itoa(n), Time: at, Data: []byte(`{"n": ` + strconv.Itoa(n) + `}`),
				}
			},
		},
		{
			name: "keys of tables", topic: "users",
			write: `INSERT INTO mythic_cache.outbox (type, view, subject)
				SELECT 'users.changed', 'user_books', 'user_' || n FROM generate_series($1::int, $2::int) AS n`,
			row: func(n int) event.Event {
				return event.Event{Type: "users.changed", View: "user_books", Subject: "user_" + strconv.Itoa(n), Time: at, Version: bareVersion()}
			},
		},
	}
}

// backlogStep is how many rows one transaction leaves.
const backlogStep = 10_000

// leave writes rows, in many transactions.
func (c *contestant) leave(ctx context.Context, w backlog, count int) error {
	for from := 1; from <= count; from += backlogStep {
		if _, err := c.conn.Exec(ctx, w.write, from, min(from+backlogStep-1, count)); err != nil {
			return fmt.Errorf("leave %s waiting: %w", w.name, err)
		}
	}
	return c.exec(ctx, "CHECKPOINT")
}

// drained is how a backlog went into the stream.
type drained struct {
	first time.Duration // from the process's start to the first entry
	whole time.Duration // from its start to the last
	rss   int64         // the process's highest
}

// rate is rows per second, the start of the process included.
func (d drained) rate(rows int) float64 { return float64(rows) / d.whole.Seconds() }

// steady is rows per second once they flowed.
func (d drained) steady(rows int) float64 { return float64(rows) / (d.whole - d.first).Seconds() }

// drainOnce starts the process over waiting rows and stops it when all are in the
// stream, each once.
func (c *contestant) drainOnce(ctx context.Context, topic string, rows int) (d drained, err error) {
	begun := time.Now()
	if err := c.begin(); err != nil {
		return d, err
	}
	for n := int64(0); n < int64(rows); {
		time.Sleep(5 * time.Millisecond)
		if n, err = c.entries(ctx, topic); err != nil {
			return d, err
		}
		if n > 0 && d.first == 0 {
			d.first = time.Since(begun)
		}
		if err := c.process.Alive(); err != nil {
			return d, err
		}
		if time.Since(begun) > 2*patience {
			return d, fmt.Errorf("after %s %d of %d rows are in the stream", time.Since(begun), n, rows)
		}
	}
	d.whole = time.Since(begun)
	if err := c.caughtUp(ctx); err != nil {
		return d, err
	}
	n, err := c.entries(ctx, topic)
	if err != nil {
		return d, err
	}
	if n != int64(rows) {
		return d, fmt.Errorf("%d rows became %d entries", rows, n)
	}
	if _, d.rss, err = gauge.Memory(c.process.PID()); err != nil {
		return d, err
	}
	return d, c.stop()
}

// loop sends rows that it holds in memory, 500 in a pipeline on one connection,
// and returns how many it sent in a second.
func (b *bed) loop(ctx context.Context, held []event.Event) (float64, error) {
	const pipelined = 500
	options, err := redis.ParseURL(b.redis.URL())
	if err != nil {
		return 0, fmt.Errorf("the address of Redis: %w", err)
	}
	options.PoolSize = 1
	client := redis.NewClient(options)
	defer client.Close()
	const key = "loop"
	defer b.client.Del(ctx, key)
	begun := time.Now()
	for at := 0; at < len(held); at += pipelined {
		pipe := client.Pipeline()
		for _, e := range held[at:min(at+pipelined, len(held))] {
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: key, Values: e.Fields()})
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return 0, fmt.Errorf("send in a loop: %w", err)
		}
	}
	return float64(len(held)) / time.Since(begun).Seconds(), nil
}
