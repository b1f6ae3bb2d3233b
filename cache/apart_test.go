package cache_test

import (
	"context"
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// TestAStoreApartHasConnectionsOfItsOwn whose lack is nobody else's.
func TestAStoreApartHasConnectionsOfItsOwn(t *testing.T) {
	t.Parallel()
	s := testserver.NewRedis(t)
	store := newStore(t, s, cache.Options{})
	apart, err := store.Apart(func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		o, err := redis.ParseURL(s.URL())
		if err != nil {
			return nil, err
		}
		o.OnConnect, o.ContextTimeoutEnabled, o.PoolSize, o.PipelinePoolSize, o.PoolTimeout = onConnect, true, 1, -1, 1
		return redis.NewClient(o), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { apart.Close() })
	put(t, apart, "u", at(5), `{"by":"apart"}`)
	expect(t, store, "u", cache.Hit, "", `{"by":"apart"}`)
	if counts := store.Counts()["books"]; counts.Saves != 1 || counts.Hits != 1 || counts != apart.Counts()["books"] {
		t.Errorf("the store counts %+v, and the one apart from it %+v", counts, apart.Counts()["books"])
	}
	only := apart.Client().(*redis.Client).Conn()
	t.Cleanup(func() { only.Close() })
	if err := only.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := apart.Ping(t.Context()); !errors.Is(err, redis.ErrPoolTimeout) {
		t.Errorf("its one connection was taken, and yet: %v", err)
	}
	expect(t, store, "u", cache.Hit, "", `{"by":"apart"}`)
}
