package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"mythiccache/cache"
)

// TestRefusalsAreCounted has callers refused in each way, and says by which words.
func TestRefusalsAreCounted(t *testing.T) {
	w := begin(t)
	w.hears()
	w.put("user_books", "user_1", fill(t, books("user_1")))
	good, bad := token(t, "user_1"), token(t, "user_1", func(c jwt.MapClaims) { c["jti"] = "bad" })
	w.hide(cache.HashToken(raw(bad)))
	for range 2 { // the second time it is remembered
		w.get("/books/my", "Authorization", good).wants(t, 200, nil)
	}
	for _, authorization := range []string{
		"Basic x", bad, "Bearer x.y.z", good + "A", token(t, "user_1", func(c jwt.MapClaims) { c["exp"] = 1 }),
	} {
		w.get("/books/my", "Authorization", authorization).wants(t, 401, nil)
	}
	w.get("/books/my").wants(t, 401, nil)
	w.do(http.MethodPost, "/events", "[]", "Authorization", good).wants(t, 401, nil)
	text := string(w.get("/metrics").body)
	for _, why := range []string{"header", "revoked", "invalid", "signature", "expired", "nothing-shown", "not-the-app"} {
		if want := `mythic_cache_http_unauthorized_total{why="` + why + `"} 1`; !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	for _, result := range []string{"good", "bad"} {
		if want := `mythic_cache_http_token_looks_total{result="` + result + `"} 1` + "\n"; !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
