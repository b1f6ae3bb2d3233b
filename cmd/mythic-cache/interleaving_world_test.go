package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"mythiccache/consumers"
	"mythiccache/internal/testserver"
	"mythiccache/producers"
)

// interleavingBed is the servers and the database of all rounds.
type interleavingBed struct {
	*testing.T
	pool   *pgxpool.Pool
	redis  *testserver.Redis
	client *redis.Client // by the short way
	loader *consumers.Loader
	rounds int
}

func newInterleavingBed(t *testing.T) *interleavingBed {
	t.Helper()
	b := &interleavingBed{T: t, redis: testserver.NewRedis(t)}
	url := postgres.Database(t)
	if _, err := producers.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.pool, err = consumers.NewPool(context.Background(), url, 30); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.pool.Close)
	const table = `CREATE TABLE touches (id text, xid xid8 DEFAULT pg_current_xact_id()); CREATE INDEX ON touches (id);
		SELECT mythic_cache.begin_epoch(1)`
	if _, err := b.pool.Exec(t.Context(), table); err != nil {
		t.Fatal(err)
	}
	if b.loader, err = consumers.NewLoader(b.pool, consumers.LoaderOptions{Timeout: 10 * time.Second, Turns: 20}); err != nil {
		t.Fatal(err)
	}
	b.client = b.redis.Client(t)
	return b
}

// interleavingTally counts what a round did.
type interleavingTally struct {
	operations, transactions, applied, hits, accepted, refused, heard, flushes atomic.Int64
}

// interleavingWorld is one round: everybody who writes, tells of it, loads and reads, all at
// the same time, and what they know of each other.
type interleavingWorld struct {
	*interleavingBed
	weather interleavingWeather
	oracle  *interleavingOracle
	shelf   interleavingShelf
	tally   interleavingTally
	round   int

	mu       sync.Mutex
	keys     []*interleavingKey
	born     int
	pending  []*interleavingWrite // not yet seen by the relay
	queues   [2][]interleavingEvent
	history  []interleavingEvent
	fences   []interleavingEvent // of the whole view; only fence has them
	wrong    error
	violated context.CancelFunc
}

func (b *interleavingBed) newWorld(weather interleavingWeather) *interleavingWorld {
	b.rounds++
	w := &interleavingWorld{interleavingBed: b, weather: weather, oracle: newInterleavingOracle(), round: b.rounds}
	for range weather.Keys {
		w.keys = append(w.keys, w.newKey())
	}
	return w
}

// dial is the long way to Redis.
func (w *interleavingWorld) dial(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
	o, err := redis.ParseURL(w.redis.URL())
	if err != nil {
		return nil, err
	}
	o.OnConnect, o.ContextTimeoutEnabled, o.PoolSize = onConnect, true, 40
	client := redis.NewClient(o)
	client.AddHook(straits{w.weather.DelayEvery, &w.tally.operations})
	return client, nil
}

// run has all at work until there were so many operations, or something is wrong.
func (w *interleavingWorld) run(operations int64) error {
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	w.violated = cancel
	var all sync.WaitGroup
	many := func(count int, what string, do func(context.Context) error) {
		for range count {
			all.Go(func() {
				for ctx.Err() == nil && w.tally.operations.Load() < operations {
					if err := do(ctx); err != nil && ctx.Err() == nil {
						w.fail(fmt.Errorf("%s: %w", what, err))
					}
				}
			})
		}
	}
	many(w.weather.Writers, "write", w.write)
	many(1, "relay", w.relay)
	many(w.weather.Appliers, "apply", func(ctx context.Context) error { return w.work(ctx, toInvalidate) })
	many(w.weather.Appliers, "precompute", func(ctx context.Context) error { return w.work(ctx, toPrecompute) })
	many(w.weather.Fillers, "fill", w.fill)
	many(w.weather.Readers, "read", w.read)
	many(1, "flush", w.flush)
	many(1, "fence", w.fence)
	all.Wait()
	return w.wrong
}

// fail ends the round with its first fault.
func (w *interleavingWorld) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrong == nil {
		w.wrong = err
	}
	w.violated()
}

// settle tells of all that is left, fills every key and demands that its value is served
// and has seen everything: to refuse all would be safe, too.
func (w *interleavingWorld) settle() error {
	ctx := w.Context()
	for len(w.pending) > 0 || len(w.queues[toInvalidate]) > 0 {
		if err := errors.Join(w.relay(ctx), w.work(ctx, toInvalidate)); err != nil {
			return err
		}
	}
	for _, key := range w.keys {
		required := w.oracle.committedTo(key.name)
		testserver.Eventually(w, "filled in the end", func() error {
			_, _ = w.shelf.fill(ctx, key.name, func() []uint64 { return nil })
			body, found, err := w.shelf.read(ctx, key.name, 0)
			if err == nil && !found {
				err = errors.New("a miss")
			}
			return errors.Join(err, judgeInterleaving(body, required))
		})
	}
	return nil
}
