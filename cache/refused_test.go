package cache_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// Where Redis refuses connections, nothing is said to be there or not.
func TestNothingIsSaidOfWhatRedisRefuses(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	admin := r.Client(t)
	if err := admin.ACLSetUser(t.Context(), "default", "-script").Err(); err != nil { // what each new connection begins with
		t.Fatal(err)
	}
	if err := admin.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	if revoked, err := s.Revoked(t.Context(), cache.Token{Hash: cache.HashToken("a"), JTI: "j", Sub: "u"}); err == nil {
		t.Errorf("whether a token is revoked: %t", revoked)
	}
	if got, err := s.Read(t.Context(), cache.Query{View: books(), Key: "a"}); err == nil {
		t.Errorf("read: %v", got.Status)
	}
	if _, err := s.Lease(t.Context(), books(), "a", time.Minute); err == nil {
		t.Error("a lease was taken")
	}
}

// What Redis never allows is said once: the limiter, and names of connections.
func TestWhatRedisNeverAllowsIsSaid(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	var log testserver.Log
	s := newStore(t, server, cache.Options{Log: zerolog.New(&log)})
	r := newReader(t, s, 0)
	admin := server.Client(t)
	q := book("a")
	q.Limit = &cache.Limit{Rule: "r", Caller: "c", Count: 100, Per: time.Hour}
	again := func(rule string) { // by new connections
		t.Helper()
		if err := admin.ACLSetUser(t.Context(), "default", rule).Err(); err != nil {
			t.Fatal(err)
		}
		if err := admin.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			readBy(t, r, q)
		}
	}
	const limiter, names, named = "does not run the limiter", "lets no connection be named", "be named again"
	wants := func(when string, want map[string]int) {
		t.Helper()
		for what, n := range want {
			if got := strings.Count(log.String(), what); got != n {
				t.Errorf("%s, %q was said %d times, not %d", when, what, got, n)
			}
		}
	}
	again("+@all")
	wants("while all is allowed", map[string]int{limiter: 0, names: 0, named: 0})
	for range 2 {
		again("-evalsha")
		again("-client|setname")
	}
	wants("refused", map[string]int{limiter: 1, names: 1, named: 0})
	for range 2 {
		again("+client|setname")
	}
	wants("allowed again", map[string]int{limiter: 1, names: 1, named: 1})
}
