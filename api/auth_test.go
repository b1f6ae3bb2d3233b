package api

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"mythiccache/cache"
	"mythiccache/producers/event"
)

func TestTokens(t *testing.T) {
	w := begin(t, func(o *Options) { o.Auth.Issuer, o.Auth.Audience = "https://clerk.example", "mythic" })
	w.put("user_books", "user_1", fill(t, books("user_1")))
	good := func(c jwt.MapClaims) { c["iss"], c["aud"] = "https://clerk.example", "mythic" }
	with := func(change func(jwt.MapClaims)) string { return token(t, "user_1", good, change) }
	w.get("/books/my", "Authorization", token(t, "user_1", good)).wants(t, 200, nil)
	w.get("/books/my", "Authorization", with(func(c jwt.MapClaims) { c["aud"] = []string{"else", "mythic"} })).wants(t, 200, nil)

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{"sub": "user_1", "exp": time.Now().Add(time.Hour).Unix()}
	good(claims)
	sign := func(method jwt.SigningMethod, key any, header ...string) string {
		unsigned := jwt.NewWithClaims(method, claims)
		for i := 0; i < len(header); i += 2 {
			unsigned.Header[header[i]] = header[i+1]
		}
		text, err := unsigned.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + text
	}
	valid := strings.TrimPrefix(token(t, "user_1", good), "Bearer ")
	parts := strings.Split(valid, ".")
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"user_2","exp":9999999999,"iss":"https://clerk.example","aud":"mythic"}`))
	for name, authorization := range map[string]string{
		"none":                "",
		"no scheme":           valid,
		"basic":               "Basic " + valid,
		"empty":               "Bearer ",
		"garbage":             "Bearer x.y.z",
		"expired":             with(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Second).Unix() }),
		"exp that is a text":  with(func(c jwt.MapClaims) { c["exp"] = "never" }),
		"not yet valid":       with(func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(time.Hour).Unix() }),
		"another issuer":      with(func(c jwt.MapClaims) { c["iss"] = "https://evil.example" }),
		"no issuer":           with(func(c jwt.MapClaims) { delete(c, "iss") }),
		"another audience":    with(func(c jwt.MapClaims) { c["aud"] = "else" }),
		"no audience":         with(func(c jwt.MapClaims) { delete(c, "aud") }),
		"no subject":          with(func(c jwt.MapClaims) { delete(c, "sub") }),
		"empty subject":       with(func(c jwt.MapClaims) { c["sub"] = "" }),
		"long subject":        with(func(c jwt.MapClaims) { c["sub"] = strings.Repeat("x", 513) }),
		"NUL in subject":      with(func(c jwt.MapClaims) { c["sub"] = "a\x00b" }),
		"alg none":            sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"alg RS256":           sign(jwt.SigningMethodRS256, key),
		"alg HS512":           sign(jwt.SigningMethodHS512, []byte(jwtSecret)),
		"another secret":      sign(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 40))),
		"critical":            sign(jwt.SigningMethodHS256, []byte(jwtSecret), "crit", "exp"),
		"another's signature": "Bearer " + parts[0] + "." + forged + "." + parts[2],
		"without signature":   "Bearer " + parts[0] + "." + parts[1] + ".",
		"too long":            "Bearer " + strings.Repeat("x", maxToken+1),
		"the admin's":         "Bearer " + adminToken,
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if authorization != "" {
				headers = []string{"Authorization", authorization}
			}
			a := w.get("/books/my", headers...)
			a.wants(t, 401, map[string]string{"WWW-Authenticate": `Bearer realm="mythic-cache".*`, "Cache-Control": "no-store"})
			if p := a.problem(t); p.Type != "/docs#unauthorized" {
				t.Errorf("problem %+v", p)
			}
			if authorization != "" {
				// A token that is not valid is refused where none is needed, too.
				w.get("/status/RUN1", headers...).wants(t, 401, nil)
			}
		})
	}
	w.get("/books/my", "Authorization", token(t, "user_1", good), "Authorization", token(t, "user_1", good)).wants(t, 401, nil)
}

func TestAuthOptionsAreChecked(t *testing.T) {
	w := begin(t)
	for sentence, o := range map[string]AuthOptions{
		"AUTH_JWKS is for AUTH_MODE=jwt":            {Mode: AuthSession, JWKS: "https://clerk.example/jwks"},
		`AUTH_JWKS has the scheme "ftp"`:            {JWKS: "ftp://clerk.example/jwks"},
		"AUTH_JWKS is neither a file nor a URL":     {JWKS: "https://"},
		"neither AUTH_LEEWAY nor":                   {Leeway: -1},
		`AUTH_MODE is "open", which is none of jwt`: {Mode: "open"},
	} {
		options := w.server.o
		options.Auth, options.Registry = o, nil
		if _, err := New(options); err == nil || !strings.Contains(err.Error(), sentence) {
			t.Errorf("%+v: %v, want %s", o, err, sentence)
		}
	}
}

func TestTheGatewayNamesTheUser(t *testing.T) {
	w := begin(t, func(o *Options) { o.Auth = AuthOptions{Mode: AuthHeader} })
	w.put("user_books", "user_1", fill(t, books("user_1")))
	w.get("/books/my", "X-User-Id", "user_1").wants(t, 200, nil)
	// What it passes on of its own.
	w.get("/books/my", "X-User-Id", "user_1", "Authorization", "Basic dTpw").wants(t, 200, nil)
	w.get("/books/my", "X-User-Id", "user_1", "Authorization", "Bearer whatever").wants(t, 200, nil)
	w.get("/books/my", "Authorization", "Basic dTpw").wants(t, 401, nil)
	w.get("/books/my").wants(t, 401, nil)
	w.get("/books/my", "X-User-Id", "user_1", "X-User-Id", "user_2").wants(t, 400, nil)
	w.get("/books/my", "X-User-Id", strings.Repeat("x", 513)).wants(t, 400, nil)
}

func TestOnlyTheAppMayNameAUser(t *testing.T) {
	w := begin(t)
	w.put("user_books", "user_1", fill(t, books("user_1")))
	w.put("user_books", "user_2", fill(t, books("user_2")))
	a := w.get("/books/my", "Authorization", "Bearer "+eventsToken, "X-User-Id", "user_1")
	a.wants(t, 200, nil)
	if string(a.body) != books("user_1") {
		t.Errorf("%s", a.body)
	}
	w.get("/books/my", "Authorization", "Bearer "+eventsToken).wants(t, 400, nil)
	w.get("/books/my", "X-User-Id", "user_1").wants(t, 401, nil)
	// A user who names another stays himself.
	a = w.get("/books/my", "Authorization", token(t, "user_2"), "X-User-Id", "user_1")
	a.wants(t, 200, nil)
	if string(a.body) != books("user_2") {
		t.Errorf("%s", a.body)
	}
}

// TestIsolation has thousands of callers ask at once, some for what is another's.
func TestIsolation(t *testing.T) {
	w := begin(t)
	const users = 2000
	name := func(i int) string { return fmt.Sprintf("user_%d", i%users) }
	run := func(i int) string { return fmt.Sprintf("RUN%d", i%users) }
	for i := range users {
		w.put("user_books", name(i), fill(t, books(name(i))))
		f := fill(t, status(run(i)))
		f.Owned, f.Owner = true, name(i)
		w.put("run_status", run(i), f)
	}
	bearers := make([]string, users)
	for i := range bearers {
		bearers[i] = token(t, name(i))
	}
	get := func(path, authorization string) *answer {
		r, _ := http.NewRequest(http.MethodGet, w.url+path, http.NoBody)
		r.Header.Set("Authorization", authorization)
		a, err := send(r)
		if err != nil {
			t.Error(err)
			return &answer{Response: &http.Response{}}
		}
		return a
	}
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := worker; i < users; i += 8 {
				for range 2 { // verified, then remembered
					if a := get("/books/my", bearers[i]); a.StatusCode != http.StatusOK || string(a.body) != books(name(i)) {
						t.Errorf("%s got %d %s", name(i), a.StatusCode, a.body)
					}
				}
				if a := get("/status/"+run(i), bearers[i]); a.StatusCode != http.StatusOK || string(a.body) != status(run(i)) {
					t.Errorf("%s got %d %s", name(i), a.StatusCode, a.body)
				}
				if a := get("/status/"+run(i+1), bearers[i]); a.StatusCode != http.StatusNotFound || strings.Contains(string(a.body), run(i+1)) {
					t.Errorf("%s got another's run: %d %s", name(i), a.StatusCode, a.body)
				}
			}
		})
	}
	group.Wait()
}

// TestAnothersRunLooksLikeNone compares the answers, and asks in every way that
// is not the owner's.
func TestAnothersRunLooksLikeNone(t *testing.T) {
	w := begin(t)
	owned := fill(t, status("OWNED"))
	owned.Owned, owned.Owner = true, "user_1"
	e := w.put("run_status", "OWNED", owned)
	gone := fill(t, status("GONE"))
	gone.Owned = true // its owner was deleted
	w.put("run_status", "GONE", gone)
	s := at(t, 1, "100:100:")
	w.worker(func(e event.Event) {
		w.put(e.View, e.Subject, cache.Fill{Negative: true, Version: s.Version(), Snapshot: s})
	})

	w.get("/status/OWNED", "Authorization", token(t, "user_1")).wants(t, 200, nil)
	w.get("/status/OWNED", "Authorization", "Bearer "+eventsToken, "X-User-Id", "user_1").wants(t, 200, nil)
	none := w.get("/status/NONE", "Authorization", token(t, "user_2"))
	none.wants(t, 404, nil) // a miss that had to be filled, where the others are cached
	for _, headers := range [][]string{
		nil,
		{"Authorization", token(t, "user_2")},
		{"Authorization", token(t, "user_2"), "If-None-Match", e.ETag},
		{"Authorization", token(t, "user_2"), "X-User-Id", "user_1"},
		{"Authorization", "Bearer " + eventsToken},
		{"X-User-Id", "user_1"},
		{"If-None-Match", "*"},
	} {
		for _, path := range []string{"/status/OWNED", "/status/GONE"} {
			a := w.get(path, headers...)
			a.wants(t, 404, nil)
			if !bytes.Equal(a.body, none.body) {
				t.Errorf("%s %v: %s", path, headers, a.body)
			}
			for name := range a.Header {
				switch name {
				case "Date", "X-Process-Time":
				case "Server-Timing":
					if timing := a.Header.Get(name); strings.Contains(timing, ",") {
						t.Errorf("%s %v: the times are %s", path, headers, timing)
					}
				default:
					if got, want := a.Header.Get(name), none.Header.Get(name); got != want {
						t.Errorf("%s %v: %s is %q; where there is nothing it is %q", path, headers, name, got, want)
					}
				}
			}
			if w.do(http.MethodHead, path, "", headers...).StatusCode != http.StatusNotFound {
				t.Errorf("HEAD %s %v tells more", path, headers)
			}
		}
	}
}
