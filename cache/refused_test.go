package cache_test

import (
	"testing"
	"time"

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
