package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/bench/writers"
	"mythiccache/producers/event"
)

// connections is how many an app has.
const connections = 16

// follower writes at a steady rate, whether or not what it wrote before has
// arrived, and notes when each write's key can be read from the stream. Each write
// changes a book of another user, in turn, so that the key tells which it was.
type follower struct {
	c       *contestant
	users   int
	begun   time.Time
	writes  []write
	present []atomic.Int64 // of each user: one more than the number of its write
}

// write is when, since the follower began, a commit returned and when its entry
// was read; 0 for not yet.
type write struct {
	took            time.Duration // of the commit itself
	committed, read atomic.Int64
}

// followed is what came of the writes of one round.
type followed struct {
	late   []float64 // ms from the return of the commit to the entry
	commit []float64 // ms that the commits took
	lost   int       // writes whose entry never came
	self   float64   // processor time of this program meanwhile, in % of a core
}

// follow writes for a period, at so many a second.
func (c *contestant) follow(ctx context.Context, users, rate int, period time.Duration) (followed, error) {
	f := &follower{c: c, users: users, writes: make([]write, rate*int(period.Seconds())), present: make([]atomic.Int64, users+1)}
	last, err := c.lastEntry(ctx, "books")
	if err != nil {
		return followed{}, err
	}
	before, err := gauge.CPU(os.Getpid())
	if err != nil {
		return followed{}, err
	}
	f.begun = time.Now()
	reading, enough := context.WithCancel(ctx)
	defer enough()
	read := make(chan error, 1)
	go func() { read <- f.read(reading, last) }()
	err = f.app().Run(ctx, len(f.writes), rate)
	if err == nil {
		// What has not come when the mark has come never will.
		err = c.caughtUp(ctx)
	}
	enough()
	if err := errors.Join(err, <-read); err != nil {
		return followed{}, err
	}
	after, err := gauge.CPU(os.Getpid())
	if err != nil {
		return followed{}, err
	}
	came := f.came()
	came.self = 100 * (after - before).Seconds() / time.Since(f.begun).Seconds()
	return came, c.clear(ctx)
}

// app makes the writes.
func (f *follower) app() writers.App {
	update := "UPDATE books SET title = 'write ' || $1::int WHERE id = " + idOf("$2::int")
	return writers.App{
		Connections: connections,
		Connect:     func(ctx context.Context) (*pgx.Conn, error) { return connect(ctx, f.c.url) },
		Statement:   update,
		Write:       func(ctx context.Context, conn *pgx.Conn, n int) error { return f.commit(ctx, conn, update, n) },
	}
}

func (f *follower) commit(ctx context.Context, conn *pgx.Conn, update string, n int) error {
	user := 1 + n%f.users
	f.present[user].Store(int64(n) + 1)
	begun := time.Now()
	tag, err := conn.Exec(ctx, update, n, user) // book n is user n's, as far as there are users
	if err != nil {
		return fmt.Errorf("write %d: %w", n, err)
	}
	f.writes[n].committed.Store(int64(time.Since(f.begun)))
	f.writes[n].took = time.Since(begun)
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("write %d changed %d rows", n, tag.RowsAffected())
	}
	return nil
}

// read notes when entries come, until the context ends and none is left.
func (f *follower) read(ctx context.Context, last string) error {
	for {
		over := ctx.Err() != nil
		entries, err := f.c.after(context.WithoutCancel(ctx), "books", last)
		if err != nil {
			return err
		}
		now := int64(time.Since(f.begun))
		for _, entry := range entries {
			last = entry.ID
			if err := f.note(entry, now); err != nil {
				return err
			}
		}
		if over && len(entries) == 0 {
			return nil
		}
	}
}

func (f *follower) note(entry redis.XMessage, now int64) error {
	subject, ok := entry.Values[event.FieldSubject].(string)
	number, isUser := strings.CutPrefix(subject, "user_")
	user, err := strconv.Atoi(number)
	if !ok || !isUser || err != nil || user < 1 || user > f.users {
		return fmt.Errorf("an entry nobody wrote: %v", entry.Values)
	}
	if n := f.present[user].Load(); n > 0 {
		f.writes[n-1].read.CompareAndSwap(0, now)
	}
	return nil
}

func (f *follower) came() followed {
	var all followed
	for i := range f.writes {
		w := &f.writes[i]
		all.commit = append(all.commit, ms(w.took))
		if w.read.Load() == 0 {
			all.lost++
			continue
		}
		// An entry may be there before its writer hears that it has committed.
		all.late = append(all.late, ms(max(0, time.Duration(w.read.Load()-w.committed.Load()))))
	}
	return all
}

// lastEntry returns the id that the next entry of a topic will come after.
func (c *contestant) lastEntry(ctx context.Context, topic string) (string, error) {
	key := c.keys.Topic(topic)
	there, err := c.client.Exists(ctx, key).Result()
	if err != nil || there == 0 {
		return "0", err
	}
	info, err := c.client.XInfoStream(ctx, key).Result()
	if err != nil {
		return "", fmt.Errorf("look at %s: %w", key, err)
	}
	return info.LastGeneratedID, nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
