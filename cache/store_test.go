package cache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

func TestMain(m *testing.M) {
	// go-redis looks each second whether a Redis is back that refused a connection, until
	// it sees that its pool is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

var errWrong = errors.New("not yet")

func books() *view.View {
	return &view.View{Name: "books", TTL: 30 * time.Minute, Negative: 10 * time.Second}
}

func answers() *view.View {
	return &view.View{Name: "answers", TTL: time.Hour, Negative: 10 * time.Second, Model: true}
}

// dial dials as the program does.
func dial(r *testserver.Redis) cache.Dial {
	return func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		o, err := redis.ParseURL(r.URL())
		if err != nil {
			return nil, err
		}
		o.OnConnect, o.DialerRetries = onConnect, 1
		o.ContextTimeoutEnabled = true
		o.PoolSize = 20
		return redis.NewClient(o), nil
	}
}

// newStore makes a store whose two views have their keys.
func newStore(t *testing.T, r *testserver.Redis, o cache.Options) *cache.Store {
	t.Helper()
	return newStoreBy(t, dial(r), o)
}

// newStoreBy makes a store whose connections are made in a way of the test's own.
func newStoreBy(t *testing.T, dial cache.Dial, o cache.Options) *cache.Store {
	t.Helper()
	s, err := cache.New(dial, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.EnsureViews(t.Context(), []*view.View{books(), answers()}, at(1).Version()); err != nil {
		t.Fatal(err)
	}
	return s
}

// at is the snapshot of an idle database whose next transaction has this id.
func at(xmax uint64) version.Snapshot { return version.Snapshot{Epoch: 1, Xmin: xmax, Xmax: xmax} }

func lease(t *testing.T, s *cache.Store, v *view.View, key string) cache.Lease {
	t.Helper()
	l, err := s.Lease(t.Context(), v, key, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fill makes a fill as of a snapshot.
func fill(snapshot version.Snapshot, body string) cache.Fill {
	return cache.Fill{Version: snapshot.Version(), Snapshot: snapshot, Body: []byte(body)}
}

// put leases and puts, which must succeed.
func put(t *testing.T, s *cache.Store, key string, snapshot version.Snapshot, body string) cache.Entry {
	t.Helper()
	e, err := s.Put(t.Context(), lease(t, s, books(), key), fill(snapshot, body))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func invalidate(t *testing.T, s *cache.Store, key string, v version.Version) (applied int) {
	t.Helper()
	applied, err := s.Invalidate(t.Context(), []cache.Change{{View: books(), Key: key, Version: v}})
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

func read(t *testing.T, s *cache.Store, q cache.Query) cache.Result {
	t.Helper()
	r, err := s.Read(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// expect reads a key of books and compares what it finds.
func expect(t *testing.T, s *cache.Store, key string, status cache.Status, why, body string) cache.Result {
	t.Helper()
	r := read(t, s, cache.Query{View: books(), Key: key})
	if r.Status != status || r.Why != why || string(r.Entry.Body) != body {
		t.Fatalf("read %s: %s %q %q; want %s %q %q", key, r.Status, r.Why, r.Entry.Body, status, why, body)
	}
	return r
}

func TestNewNeedsNoRedis(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t)
	r.Stop()
	s, err := cache.New(dial(r), cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Ping(t.Context()); err == nil {
		t.Error("a Redis that is down answers")
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "ping", func() error { return s.Ping(t.Context()) })
	if len(s.RunID()) != 40 {
		t.Errorf("run_id is %q", s.RunID())
	}
}

func TestNewChecksItsOptions(t *testing.T) {
	if _, err := cache.New(nil, cache.Options{}); err == nil {
		t.Error("a store without a dial was made")
	}
	if _, err := cache.New(dial(testserver.NewRedis(t)), cache.Options{StaleFor: -1}); err == nil {
		t.Error("a negative StaleFor was accepted")
	}
}

func TestContextsAreRespected(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	if err := r.Freeze(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	started := time.Now()
	_, err := s.Read(ctx, cache.Query{View: books(), Key: "a"})
	if took := time.Since(started); err == nil || took > time.Second {
		t.Errorf("a read of a frozen Redis returned %v after %s", err, took)
	}
	if err := r.Thaw(); err != nil {
		t.Fatal(err)
	}
}

// After SCRIPT FLUSH the connections stand and the scripts are gone.
func TestLostScriptsAreLoadedAgain(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	if err := s.Client().ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", at(10), "1")
	if err := s.Client().ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	limit := &cache.Limit{Caller: "me", Rule: "r", Count: 2, Per: time.Hour}
	if r := read(t, s, cache.Query{View: books(), Key: "a", Limit: limit}); r.Status != cache.Hit || r.Admission.Remaining != 1 {
		t.Errorf("read %+v", r)
	}
}

func TestEveryKeyExpiresButTheViews(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{StaleFor: time.Minute})
	ctx := t.Context()
	put(t, s, "value", at(10), "1")
	put(t, s, "fenced", at(10), "1")
	invalidate(t, s, "fenced", at(20).Version())
	invalidate(t, s, "fence alone", at(20).Version())
	lease(t, s, books(), "lease alone")
	l := lease(t, s, books(), "lease renewed and fenced")
	if _, err := s.Renew(ctx, l, 10*time.Minute); err != nil {
		t.Fatal(err)
	}
	invalidate(t, s, "lease renewed and fenced", at(20).Version())
	put(t, s, "removed", at(10), "1")
	invalidate(t, s, "removed", version.Version{})
	if err := s.Abandon(ctx, lease(t, s, books(), "abandoned"), "no reason"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(ctx, lease(t, s, books(), "negative"), cache.Fill{Negative: true, Version: at(3).Version()}); err != nil {
		t.Fatal(err)
	}
	read(t, s, cache.Query{View: books(), Key: "x", Limit: &cache.Limit{Caller: "me", Rule: "r", Count: 1, Per: time.Minute}})
	if err := s.PutReport(ctx, cache.Report{Instance: "i"}); err != nil {
		t.Fatal(err)
	}
	names, err := s.Client().Keys(ctx, "*").Result()
	if err != nil || len(names) != 13 {
		t.Fatalf("%d keys: %q, %v", len(names), names, err)
	}
	for _, name := range names {
		ttl, err := s.Client().PTTL(ctx, name).Result()
		if err != nil {
			t.Fatal(err)
		}
		if isView := strings.HasPrefix(name, "mythic:view:"); isView != (ttl < 0) {
			t.Errorf("%s has a TTL of %s", name, ttl)
		}
		if name == "mythic:books:{lease renewed and fenced}" && ttl < 11*time.Minute {
			t.Errorf("a fence lives for %s beside a lease of 10 minutes", ttl)
		}
	}
}

func TestCountsAndClock(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	put(t, s, "a", at(10), "1")
	r := expect(t, s, "a", cache.Hit, "", "1")
	expect(t, s, "b", cache.Miss, cache.WhyAbsent, "")
	invalidate(t, s, "a", at(20).Version())
	if _, err := s.Put(t.Context(), lease(t, s, books(), "a"), fill(at(10), "1")); !errors.Is(err, cache.ErrRefused) {
		t.Fatal(err)
	}
	want := cache.ViewCounts{Hits: 1, Misses: 1, Saves: 1, Refused: 1, Invalidations: 1}
	if got := s.Counts()["books"]; got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
	now, err := s.Client().Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	if age := now.Sub(r.Now); age < 0 || age > 10*time.Second {
		t.Errorf("the clock of Redis is taken for %s, %s off", r.Now, age)
	}
	if fresh := r.Entry.FreshUntil.Sub(r.Entry.Saved); fresh > 30*time.Minute || fresh < 28*time.Minute {
		t.Errorf("fresh for %s", fresh)
	}
}

// eventually waits for a condition that nobody announces.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	testserver.Eventually(t, what, func() error {
		if !ok() {
			return fmt.Errorf("%s: %w", what, errWrong)
		}
		return nil
	})
}
