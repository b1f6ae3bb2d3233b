package api

import (
	"net/http"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"mythiccache/cache"
)

// TestAStreamOnWhichNothingHappensEndsWithItsToken revokes the token of one. With each
// heartbeat it is looked at again.
func TestAStreamOnWhichNothingHappensEndsWithItsToken(t *testing.T) {
	if every := usualWatchTimes().heartbeat; every > 15*time.Second {
		t.Errorf("a revoked token reads on for %s", every)
	}
	w := begin(t)
	w.quick(func(s *watchTimes) { s.heartbeat = 50 * time.Millisecond })
	w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	mine := token(t, "user_1")
	c, stays := w.watch("/status/RUN1", "Authorization", mine), w.watch("/status/RUN1", "Authorization", token(t, "user_2"))
	c.next()
	stays.next()
	w.revoke(cache.RevokedToken(cache.HashToken(raw(mine))), time.Now())
	for _, e := range c.rest() {
		if e.data != "" {
			t.Errorf("it was sent %+v", e)
		}
	}
	w.watchers(1)
	w.get("/status/RUN1", "Authorization", mine, "Accept", eventStream).wants(t, 401, nil)
	w.put("run_status", "RUN1", told(t, "RUN1", "two", 101))
	stays.next()
}

// TestWhatWasShownStillStands looks again at what callers showed when they came.
func TestWhatWasShownStillStands(t *testing.T) {
	w := begin(t)
	h := w.server.watches
	showing := func(authorization string) *shown {
		return &shown{header: http.Header{"Authorization": {authorization}}, remote: "127.0.0.1:1", need: anyone}
	}
	user := userCaller("user_1")
	onBehalf := showing("Bearer " + eventsToken)
	onBehalf.header["X-User-Id"] = []string{"user_1"}
	for name, try := range map[string]struct {
		what *shown
		c    caller
		want bool
	}{
		"nothing":             {nil, caller{limited: "address:127.0.0.1"}, true},
		"the same":            {showing(token(t, "user_1")), user, true},
		"another's":           {showing(token(t, "user_2")), user, false},
		"over":                {showing(token(t, "user_1", func(c jwt.MapClaims) { c["exp"] = 1 })), user, false},
		"the app's, for them": {onBehalf, user, false},
		"no token":            {showing("Bearer x"), user, false},
	} {
		if h.admits(try.what, try.c) != try.want {
			t.Errorf("%s: %t", name, !try.want)
		}
	}
	if err := w.redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer w.redis.Thaw()
	if !h.admits(showing(token(t, "user_1", func(c jwt.MapClaims) { c["jti"] = "new" })), user) {
		t.Error("while nobody can tell, a stream ends")
	}
}
