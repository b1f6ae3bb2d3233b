package capture

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

//go:embed bare.sql
var bareSQL string

const (
	bareListens = "bare"
	barePrefix  = "bare:"
	bareRows    = 1000
)

// bareVersion is as long as the version that the program sends with each table
// event. The baseline has none, and pays for its transport alone.
func bareVersion() string { return strings.Repeat("0", 36) }

// Bare is the main of the baseline's process: it LISTENs, reads `id > last` in
// batches and sends each in one pipeline, until the context ends.
func Bare(ctx context.Context, database, redisURL string) error {
	options, err := redis.ParseURL(redisURL)
	if err != nil {
		return fmt.Errorf("the address of Redis: %w", err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	config, err := pgx.ParseConfig(database)
	if err != nil {
		return fmt.Errorf("the address of PostgreSQL: %w", err)
	}
	b := &bareLoop{client: client, keys: stream.NewKeys(barePrefix)}
	config.RuntimeParams["application_name"] = bareListens
	config.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) { b.rung = true }
	if b.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer b.conn.Close(context.WithoutCancel(ctx))
	if _, err := b.conn.Exec(ctx, "LISTEN bare"); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		if err := b.round(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// bareLoop is what the baseline's process knows.
type bareLoop struct {
	conn   *pgx.Conn
	client *redis.Client
	keys   stream.Keys
	last   int64 // id of the last row sent
	rung   bool  // since the last reading began
}

// round sends what there is and waits where there is no more.
func (b *bareLoop) round(ctx context.Context) error {
	rows, err := b.read(ctx)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if len(rows) > 0 {
		if err := b.send(ctx, rows); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	if len(rows) == bareRows || b.rung {
		return nil
	}
	if err := b.conn.PgConn().WaitForNotification(ctx); err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	return nil
}

func (b *bareLoop) read(ctx context.Context) ([]event.Event, error) {
	const query = "SELECT id, type, view, subject, at FROM bare.outbox WHERE id > $1 ORDER BY id LIMIT $2"
	rows, err := b.conn.Query(ctx, query, b.last, bareRows)
	if err != nil {
		return nil, err
	}
	// What rang up to here was committed before the reading began.
	b.rung = false
	version := bareVersion()
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (event.Event, error) {
		e := event.Event{Version: version}
		return e, row.Scan(&b.last, &e.Type, &e.View, &e.Subject, &e.Time)
	})
}

func (b *bareLoop) send(ctx context.Context, events []event.Event) error {
	pipe := b.client.Pipeline()
	for _, e := range events {
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: b.keys.Topic(e.Topic()), Values: e.Fields()})
	}
	_, err := pipe.Exec(ctx)
	return err
}

// newBare is the baseline, installed in a database of its own.
func (b *bed) newBare(ctx context.Context) (*contestant, error) {
	c, err := b.newContestant(ctx, "bare", barePrefix)
	if err != nil {
		return nil, err
	}
	c.mark, c.empty, c.listens = "SELECT bare.mark($1)", "TRUNCATE bare.outbox", bareListens
	c.arguments = []string{b.self, BareCommand, c.url, b.redis.URL()}
	if err := c.exec(ctx, bareSQL); err != nil {
		return nil, errors.Join(err, c.conn.Close(ctx))
	}
	return c, nil
}

// BareCommand is the word by which this program, started again, is told to be
// the baseline's process; the addresses of PostgreSQL and Redis follow.
const BareCommand = "capture-bare"
