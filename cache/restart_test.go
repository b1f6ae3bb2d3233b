package cache_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

// restart kills Redis, which keeps all it had acknowledged, and waits until the
// store has met the next one.
func restart(t *testing.T, r *testserver.Redis, s *cache.Store) {
	t.Helper()
	before := s.RunID()
	r.Kill()
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "ping", func() error { return s.Ping(t.Context()) })
	if s.RunID() == before {
		t.Fatalf("the run_id is still %s", before)
	}
}

func TestRestartOfRedis(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t, "--appendfsync", "always")
	s := newStore(t, r, cache.Options{})
	views := []*view.View{books(), answers()}
	put(t, s, "kept", at(20), "kept")
	held := lease(t, s, books(), "held")
	expect(t, s, "kept", cache.Hit, "", "kept")
	before := s.RunID()

	restart(t, r, s)

	// The fence that would refuse this put may be among what was lost.
	if _, err := s.Renew(t.Context(), held, time.Minute); !errors.Is(err, cache.ErrLost) {
		t.Errorf("renew a lease of the Redis before: %v", err)
	}
	if _, err := s.Put(t.Context(), held, fill(at(20), "x")); !errors.Is(err, cache.ErrRefused) || !strings.Contains(err.Error(), "restarted") {
		t.Errorf("put under a lease of the Redis before: %v", err)
	}
	expect(t, s, "held", cache.Miss, cache.WhyAbsent, "")
	expect(t, s, "kept", cache.Stale, cache.WhyUnconfirmed, "kept")
	put(t, s, "held", at(20), "filled since")
	expect(t, s, "held", cache.Hit, "", "filled since")

	if err := s.Confirm(t.Context(), views, before); !errors.Is(err, cache.ErrRestarted) {
		t.Errorf("confirm the Redis before: %v", err)
	}
	expect(t, s, "kept", cache.Stale, cache.WhyUnconfirmed, "kept")
	if err := s.Confirm(t.Context(), views, s.RunID()); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "kept", cache.Hit, "", "kept")
	confirmed, err := s.Confirmed(t.Context(), views)
	if err != nil || confirmed["books"] != s.RunID() || confirmed["answers"] != s.RunID() {
		t.Errorf("confirmed %v, %v", confirmed, err)
	}

	restart(t, r, s)
	expect(t, s, "kept", cache.Stale, cache.WhyUnconfirmed, "kept")
	expect(t, s, "held", cache.Stale, cache.WhyUnconfirmed, "filled since")
	invalidate(t, s, "kept", at(21).Version())
	expect(t, s, "kept", cache.Miss, cache.WhyFenced, "")
	// A fence does not take back a confirmation, nor give one.
	if err := s.Fence(t.Context(), books(), at(5).Version()); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "held", cache.Stale, cache.WhyUnconfirmed, "filled since")
}

// With maxmemory reached and nothing evicted, invalidations must still go through.
func TestInvalidateWhenRedisIsFull(t *testing.T) {
	r := testserver.NewRedis(t, "--maxmemory-policy", "noeviction")
	s := newStore(t, r, cache.Options{})
	put(t, s, "a", at(20), "x")
	l := lease(t, s, books(), "b")
	if err := s.Client().ConfigSet(t.Context(), "maxmemory", "1mb").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), l, fill(at(20), "x")); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Fatalf("put into a full Redis: %v", err)
	}
	if n := invalidate(t, s, "a", at(21).Version()); n != 1 {
		t.Error("nothing was invalidated")
	}
	expect(t, s, "a", cache.Miss, cache.WhyFenced, "")
	fence(t, s, at(50).Version())
	if err := s.Abandon(t.Context(), l, "full"); err != nil {
		t.Error(err)
	}
	if a, err := s.Admit(t.Context(), cache.Limit{Caller: "me", Rule: "r", Count: 1, Per: time.Minute}); err != nil || !a.Allowed {
		t.Errorf("admit: %+v, %v", a, err)
	}
}
