package cache_test

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

// address is a name that leads to one Redis, and later to another.
type address struct {
	of atomic.Pointer[testserver.Redis]
}

// dial dials as the program does: connections that are there stay where they lead.
func (a *address) dial(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
	return redis.NewClient(&redis.Options{
		OnConnect: onConnect, ContextTimeoutEnabled: true, DialerRetries: 1, PoolSize: 4,
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(a.of.Load().Port))
		},
	}), nil
}

// newMovedStore makes a store whose Redis can be another one later, with its views'
// keys confirmed.
func newMovedStore(t *testing.T, r *testserver.Redis) (*cache.Store, *address) {
	t.Helper()
	to := &address{}
	to.of.Store(r)
	s, err := cache.New(to.dial, cache.Options{StaleFor: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	confirm(t, s)
	return s, to
}

func confirm(t *testing.T, s *cache.Store) {
	t.Helper()
	if err := s.EnsureViews(t.Context(), []*view.View{books()}, at(1).Version()); err != nil {
		t.Fatal(err)
	}
	if err := s.Confirm(t.Context(), []*view.View{books()}, s.RunID()); err != nil {
		t.Fatal(err)
	}
}

// newPrimary starts a server that does not wait for more replicas before it serves one.
func newPrimary(t *testing.T) *testserver.Redis {
	t.Helper()
	return testserver.NewRedis(t, "--repl-diskless-sync-delay", "0")
}

// replicate makes a server the replica of another, and waits until it has all of it.
func replicate(t *testing.T, replica, of *testserver.Redis) {
	t.Helper()
	client := replica.Client(t)
	if err := client.ReplicaOf(t.Context(), "127.0.0.1", strconv.Itoa(of.Port)).Err(); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "the replica is in step", func() error {
		info, err := client.Info(t.Context(), "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = errWrong
		}
		return err
	})
}

func promote(t *testing.T, r *testserver.Redis) {
	t.Helper()
	if err := r.Client(t).ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
}

// hangUp ends the connections that a server has of a type.
func hangUp(t *testing.T, r *testserver.Redis, what string) {
	t.Helper()
	if err := r.Client(t).ClientKillByFilter(t.Context(), "TYPE", what, "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
}

// TestAFailoverLeavesNothingOldInMemory has the link lead to the new Redis while the
// store's connections still lead to the one before, which nobody writes any more.
func TestAFailoverLeavesNothingOldInMemory(t *testing.T) {
	t.Parallel()
	before, after := newPrimary(t), newPrimary(t)
	s, to := newMovedStore(t, before)
	put(t, s, "a", at(20), "old")
	put(t, s, "c", at(20), "another")
	r := newReader(t, s, 1<<20)
	settle(t, r, book("a"))
	replicate(t, after, before)
	promote(t, after)
	to.of.Store(after)
	hangUp(t, before, "pubsub")
	workers := newStore(t, after, cache.Options{})
	testserver.Eventually(t, "the link to the new one", func() error {
		if s.RunID() != workers.RunID() {
			return errWrong
		}
		return r.Ready()
	})
	invalidate(t, workers, "a", at(30).Version())
	put(t, workers, "a", at(30), "new")
	confirm(t, workers)
	caughtUp(t, r)
	for range 3 {
		// The one before has no other; but it is not to be taken for the new one.
		if got := readBy(t, r, book("a")); got.Near || got.Status == cache.Hit {
			t.Errorf("by the Redis before: near %t, %s", got.Near, summary(got))
		}
	}
	hangUp(t, before, "normal")
	readBy(t, r, book("c")) // brings the view's key of the new one
	if got := readBy(t, r, book("a")); string(got.Entry.Body) != "new" || got.Status != cache.Hit {
		t.Errorf("by the new one: near %t, %s", got.Near, summary(got))
	}
	if got := settle(t, r, book("a")); string(got.Entry.Body) != "new" {
		t.Errorf("at last: %s", summary(got))
	}
}

// TestWhatAReplicaTellsOfIsNotFresh has the link, and what was read, stay with a Redis
// that has been made a replica of the one that the store has come to since.
func TestWhatAReplicaTellsOfIsNotFresh(t *testing.T) {
	t.Parallel()
	before, after := newPrimary(t), newPrimary(t)
	s, to := newMovedStore(t, before)
	put(t, s, "a", at(20), "old")
	r := newReader(t, s, 1<<20)
	replicate(t, after, before)
	promote(t, after)
	workers := newStore(t, after, cache.Options{})
	invalidate(t, workers, "a", at(30).Version())
	put(t, workers, "a", at(30), "new")
	confirm(t, workers)
	replicate(t, before, after)
	caughtUp(t, r)
	if got := readBy(t, r, book("a")); string(got.Entry.Body) != "new" || got.Near {
		t.Fatalf("by the replica: near %t, %s", got.Near, summary(got))
	}
	if entries, _ := r.Held(); entries != 1 {
		t.Fatalf("%d entries in memory", entries)
	}
	to.of.Store(after)
	hangUp(t, before, "normal")
	testserver.Eventually(t, "the store's way to the new one", func() error {
		err := s.Ping(t.Context())
		if err == nil && s.RunID() != workers.RunID() {
			err = errWrong
		}
		return err
	})
	if got := readBy(t, r, book("a")); got.Near || got.Status != cache.Hit {
		t.Errorf("while the link is with the replica: near %t, %s", got.Near, summary(got))
	}
	settle(t, r, book("a")) // the link has moved
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
}

// TestALinkToAnotherRedisIsMadeAgain has the store's connections lead elsewhere while
// the link's is still there.
func TestALinkToAnotherRedisIsMadeAgain(t *testing.T) {
	t.Parallel()
	before, after := testserver.NewRedis(t), testserver.NewRedis(t)
	s, to := newMovedStore(t, before)
	put(t, s, "a", at(20), "old")
	r := newReader(t, s, 1<<20)
	settle(t, r, book("a"))
	to.of.Store(after)
	hangUp(t, before, "normal")
	testserver.Eventually(t, "the store's way to the other", func() error { return s.Ping(t.Context()) })
	if got := readBy(t, r, book("a")); got.Near || got.Status != cache.Miss {
		t.Errorf("what the other does not have: near %t, %s", got.Near, summary(got))
	}
	confirm(t, s)
	put(t, s, "a", at(20), "new")
	if got := settle(t, r, book("a")); string(got.Entry.Body) != "new" {
		t.Error(summary(got))
	}
	testserver.Eventually(t, "the link", r.Ready)
}

// TestAFenceOfAnotherRedisCounts has who reads come to a Redis whose view was fenced, while
// the link is still there, and leads to the one before.
func TestAFenceOfAnotherRedisCounts(t *testing.T) {
	t.Parallel()
	before, after := testserver.NewRedis(t), testserver.NewRedis(t)
	s, to := newMovedStore(t, before)
	put(t, s, "a", at(20), "old")
	r := newReader(t, s, 1<<20)
	settle(t, r, book("a"))
	workers := newStore(t, after, cache.Options{})
	confirm(t, workers)
	if err := workers.Fence(t.Context(), books(), at(30).Version()); err != nil {
		t.Fatal(err)
	}
	to.of.Store(after)
	hangUp(t, before, "normal")
	readBy(t, r, book("b"))
	after.Kill()
	if got, err := r.Read(t.Context(), book("a")); err == nil {
		t.Errorf("near %t, %s", got.Near, summary(got))
	}
}
