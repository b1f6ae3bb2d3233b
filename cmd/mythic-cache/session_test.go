package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// awaitBooks waits until a token is answered with a status.
func (s *system) awaitBooks(bearer string, status int) {
	s.t.Helper()
	testserver.Eventually(s.t, fmt.Sprintf("the token is answered with %d", status), func() error {
		if a := s.get("/books/my", bearer); a.status != status {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
}

// TestSessionsThroughTheWholeProgram makes a session inside a transaction and by HTTP,
// and revokes one and all of them. No token is in Redis or in the log.
func TestSessionsThroughTheWholeProgram(t *testing.T) {
	t.Parallel()
	s := newSystem(t, map[string]string{"AUTH_MODE": "session", "AUTH_JWT_SECRET": ""})
	const phone, laptop = "opaque-token-of-the-phone", "opaque-token-of-the-laptop"
	data := func(token, more string) string { return fmt.Sprintf(`{"sha256":%q%s}`, cache.HashToken(token), more) }
	s.awaitBooks(phone, http.StatusUnauthorized)
	s.exec(`SELECT mythic_cache.publish('session.created', NULL, $1)`, data(phone, `,"sub":"user_1"`))
	a := s.request(http.MethodPost, "/events", eventsToken, http.Header{"Content-Type": {"application/cloudevents+json"}},
		[]byte(`{"specversion":"1.0","id":"1","source":"tests","type":"session.created","data":`+data(laptop, `,"sub":"user_1"`)+`}`))
	if a.status != http.StatusAccepted {
		t.Fatalf("POST /events: %d %s", a.status, a.body)
	}
	s.awaitBooks(phone, http.StatusOK)
	s.awaitBooks(laptop, http.StatusOK)
	s.exec(`SELECT mythic_cache.publish('session.revoked', NULL, $1)`, data(phone, ""))
	s.awaitBooks(phone, http.StatusUnauthorized)
	s.awaitBooks(laptop, http.StatusOK)
	s.exec(`SELECT mythic_cache.publish('session.revoked', NULL, '{"sub":"user_1"}')`)
	s.awaitBooks(laptop, http.StatusUnauthorized)
	for name, text := range map[string]string{"the log": s.log.String(), "the keys": fmt.Sprint(s.client.Keys(t.Context(), "*").Val())} {
		if strings.Contains(text, "opaque-token") {
			t.Errorf("a token is in %s", name)
		}
	}
}
