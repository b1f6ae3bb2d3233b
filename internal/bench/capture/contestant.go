package capture

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/process"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// patience bounds every wait for something that is sure to come.
const patience = 2 * time.Minute

// contestant is one way of capture: a database of its own and, unless it captures
// nothing, the process that carries rows to streams of its own.
type contestant struct {
	name      string
	url       string
	conn      *pgx.Conn
	client    *redis.Client
	keys      stream.Keys
	mark      string // publishes an event of type bench.marked with the subject $1
	empty     string // empties the outbox; "" where there is none
	listens   string // application_name of the process's own session
	arguments []string
	environ   []string
	log       string // file that the process writes to
	process   *process.Process
	marks     int
	markSeen  string // id of the last entry read from the marks' stream
}

// captures reports whether there is anything beside the app's own tables.
func (c *contestant) captures() bool { return c.mark != "" }

// start starts the process and waits until it carries rows.
func (c *contestant) start(ctx context.Context) error {
	if err := c.begin(); err != nil {
		return err
	}
	return c.caughtUp(ctx)
}

// begin starts the process, unless it runs.
func (c *contestant) begin() error {
	if !c.captures() || c.process != nil {
		return nil
	}
	var err error
	c.process, err = process.Start(c.log, c.environ, c.arguments...)
	return err
}

// stop ends the process.
func (c *contestant) stop() error {
	if c.process == nil {
		return nil
	}
	err := c.process.Stop()
	c.process = nil
	return err
}

// caughtUp waits until all that was committed before is in the streams.
func (c *contestant) caughtUp(ctx context.Context) error {
	if !c.captures() {
		return nil
	}
	c.marks++
	subject := "mark " + strconv.Itoa(c.marks)
	if _, err := c.conn.Exec(ctx, c.mark, subject); err != nil {
		return fmt.Errorf("mark the end of %s: %w", c.name, err)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		entries, err := c.after(ctx, "bench", c.markSeen)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			c.markSeen = entry.ID
			if entry.Values[event.FieldSubject] == subject {
				return nil
			}
		}
		if err := c.process.Alive(); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s does not catch up within %s; it said: %s", c.name, patience, c.process.Said())
}

// after waits a moment for entries of a topic behind one, and returns none where
// none comes.
func (c *contestant) after(ctx context.Context, topic, last string) ([]redis.XMessage, error) {
	key := c.keys.Topic(topic)
	found, err := c.client.XRead(ctx, &redis.XReadArgs{Streams: []string{key, last}, Count: 1000, Block: 50 * time.Millisecond}).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return found[0].Messages, nil
}

// entries returns how many entries a topic's stream holds.
func (c *contestant) entries(ctx context.Context, topic string) (int64, error) {
	n, err := c.client.XLen(ctx, c.keys.Topic(topic)).Result()
	if err != nil {
		return 0, fmt.Errorf("count the entries of %s: %w", topic, err)
	}
	return n, nil
}

// clear throws away what is in the streams and the outbox, so that neither server
// carries more with each round. The relay's position stays where it is.
func (c *contestant) clear(ctx context.Context) error {
	if !c.captures() {
		return nil
	}
	streams, err := c.client.Keys(ctx, c.keys.Topic("*")).Result()
	if err != nil {
		return fmt.Errorf("list the streams of %s: %w", c.name, err)
	}
	for _, key := range streams {
		if kind, err := c.client.Type(ctx, key).Result(); err != nil || kind != "stream" {
			continue
		}
		if err := c.client.XTrimMaxLen(ctx, key, 0).Err(); err != nil {
			return fmt.Errorf("trim %s: %w", key, err)
		}
	}
	return c.exec(ctx, c.empty)
}

// settle waits until nothing is under way and clears what was made.
func (c *contestant) settle(ctx context.Context) error {
	if err := c.caughtUp(ctx); err != nil {
		return err
	}
	return c.clear(ctx)
}

// exec runs statements, each in a transaction of its own.
func (c *contestant) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := c.conn.Exec(ctx, sql); err != nil {
			first, _, _ := strings.Cut(strings.TrimSpace(sql), "\n")
			return fmt.Errorf("%s: %s: %w", c.name, first, err)
		}
	}
	return nil
}

// backend returns the process id of the session that the process listens with.
func (c *contestant) backend(ctx context.Context) (pid int, err error) {
	const query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1 ORDER BY backend_start DESC LIMIT 1"
	if err := c.conn.QueryRow(ctx, query, c.listens).Scan(&pid); err != nil {
		return 0, fmt.Errorf("find the session of %s: %w", c.name, err)
	}
	return pid, nil
}
