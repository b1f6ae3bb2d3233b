package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/testserver"
)

const (
	prefix   = "bench:"
	batch    = 100 // keys in a script, and commands in a pipeline
	bodySize = 630 // bytes, as of a status document
	ttl      = 30 * time.Minute
)

// bed is one Redis, a store and a bare client of it.
type bed struct {
	o      gauge.Options
	redis  *testserver.Redis
	client *redis.Client
	store  *cache.Store
	view   *view.View
}

// newBed starts a Redis without an append-only file: what it costs is the same for
// all, and hides what differs.
func newBed(ctx context.Context, o gauge.Options) (*bed, error) {
	server, err := testserver.StartRedis(ctx, testserver.RedisOptions{Dir: filepath.Join(o.Dir, "redis"), Args: []string{"--appendonly", "no"}})
	if err != nil {
		return nil, err
	}
	b := &bed{o: o, redis: server, view: &view.View{Name: "user_books", TTL: ttl, Negative: ttl}}
	if b.client, err = dial(server, nil); err == nil {
		b.store, err = newStore(server, prefix)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close(ctx))
	}
	return b, nil
}

// Close ends the server.
func (b *bed) Close(context.Context) error {
	var err error
	if b.store != nil {
		err = b.store.Close()
	}
	if b.client != nil {
		err = errors.Join(err, b.client.Close())
	}
	b.redis.Stop()
	return err
}

func dial(server *testserver.Redis, onConnect func(context.Context, *redis.Conn) error) (*redis.Client, error) {
	options, err := redis.ParseURL(server.URL())
	if err != nil {
		return nil, fmt.Errorf("the address of Redis: %w", err)
	}
	options.OnConnect, options.ContextTimeoutEnabled = onConnect, true
	return redis.NewClient(options), nil
}

func newStore(server *testserver.Redis, prefix string) (*cache.Store, error) {
	return cache.New(func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		return dial(server, onConnect)
	}, cache.Options{Prefix: prefix})
}

// repetitions of each contestant, in turn.
func (b *bed) repetitions() int {
	if b.o.Once {
		return 1
	}
	return 7
}

// scaled is how many keys stand for n.
func (b *bed) scaled(n int) int {
	if b.o.Once {
		return n / 100
	}
	return n
}

// empty leaves the view's own key and nothing else.
func (b *bed) empty(ctx context.Context) error {
	if err := b.client.FlushAll(ctx).Err(); err != nil {
		return fmt.Errorf("empty Redis: %w", err)
	}
	return b.store.EnsureViews(ctx, []*view.View{b.view}, at(1, 0).Version())
}

// keysOf are the keys of n users.
func keysOf(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("user_%08d", i)
	}
	return keys
}

// name is a key as Redis has it.
func name(key string) string { return prefix + "user_books:{" + key + "}" }

// at is a snapshot with so many transactions in progress.
func at(xmax uint64, open int) version.Snapshot {
	s := version.Snapshot{Epoch: 1_800_000_000_000, Xmin: xmax - uint64(3*open), Xmax: xmax}
	for i := range open {
		s.Xip = append(s.Xip, s.Xmin+uint64(3*i))
	}
	return s
}

// made are the fills of a body under leases.
func made(leases []cache.Lease, snapshot version.Snapshot, body []byte) []cache.Made {
	all := make([]cache.Made, len(leases))
	for i, l := range leases {
		all[i] = cache.Made{Lease: l, Fill: cache.Fill{
			Version: snapshot.Version(), Snapshot: snapshot, Body: body, LoadTook: time.Millisecond, TTL: ttl,
		}}
	}
	return all
}

// bodyOf is a body of so many bytes.
func bodyOf(size int) []byte { return []byte(strings.Repeat("0123456789", size/10+1)[:size]) }
