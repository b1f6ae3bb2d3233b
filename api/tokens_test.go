package api

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// issuer publishes keys and signs tokens with them.
type issuer struct {
	t       testing.TB
	url     string
	private map[string]crypto.Signer

	mu      sync.Mutex
	keys    map[string]json.RawMessage
	away    bool
	fetches int
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{t: t, private: map[string]crypto.Signer{}, keys: map[string]json.RawMessage{}}
	front := httptest.NewServer(i)
	t.Cleanup(front.Close)
	i.url = front.URL
	return i
}

// ServeHTTP answers with the key set.
func (i *issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	away := i.away
	i.fetches++
	i.mu.Unlock()
	if away {
		http.Error(w, "away", http.StatusBadGateway)
		return
	}
	_, _ = w.Write(i.set())
}

func (i *issuer) set() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := []json.RawMessage{}
	for _, key := range i.keys {
		all = append(all, key)
	}
	text, err := json.Marshal(map[string]any{"keys": all})
	if err != nil {
		i.t.Error(err)
	}
	return text
}

// add makes a key and publishes it, with members in the place of what it would have.
func (i *issuer) add(kid string, private crypto.Signer, members ...string) {
	i.t.Helper()
	jwk, err := jwkset.NewJWKFromKey(private.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: kid}})
	if err != nil {
		i.t.Fatal(err)
	}
	text, err := json.Marshal(jwk.Marshal())
	if err != nil {
		i.t.Fatal(err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(text, &fields); err != nil {
		i.t.Fatal(err)
	}
	delete(fields, "alg")
	for n := 0; n < len(members); n += 2 {
		fields[members[n]] = json.RawMessage(members[n+1])
	}
	if text, err = json.Marshal(fields); err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.private[kid], i.keys[kid] = private, text
}

func (i *issuer) drop(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.keys, kid)
}

func (i *issuer) goAway(away bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.away = away
}

func (i *issuer) fetched() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// sign signs a token for user_1, whose header and claims may be changed.
func (i *issuer) sign(method jwt.SigningMethod, key any, kid string, change ...func(header map[string]any, claims jwt.MapClaims)) string {
	i.t.Helper()
	claims := jwt.MapClaims{"sub": "user_1", "iss": "https://clerk.example", "aud": "mythic", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	unsigned := jwt.NewWithClaims(method, claims)
	if kid != "" {
		unsigned.Header["kid"] = kid
	}
	for _, c := range change {
		c(unsigned.Header, claims)
	}
	text, err := unsigned.SignedString(key)
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

func newECDSA(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newEd25519(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// verifier makes tokens of an issuer's keys, which have been read.
func (i *issuer) verifier(t testing.TB, o AuthOptions) *tokens {
	t.Helper()
	keys := newKeyring(&urlSource{url: i.url, client: http.DefaultClient}, time.Hour, func() {}, zerolog.Nop())
	if err := keys.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys.asked = time.Now() // nobody would answer
	return newTokens(o, keys)
}

func accepts(t *testing.T, v *tokens, name, token string) {
	t.Helper()
	if got, err := v.verify(t.Context(), token); err != nil || got.caller.user != "user_1" {
		t.Errorf("%s: %+v, %v", name, got.caller, err)
	}
}

func refuses(t *testing.T, v *tokens, name, token string) {
	t.Helper()
	got, err := v.verify(t.Context(), token)
	var p *Problem
	if !errors.As(err, &p) || p.Status != http.StatusUnauthorized || got.caller != (caller{}) {
		t.Errorf("%s is let in: %+v, %v", name, got.caller, err)
	}
}

func TestAnIssuersTokensAreVerified(t *testing.T) {
	i := newIssuer(t)
	rsaKey, p256, p384, p521, ed := newRSA(t, 2048), newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P384()), newECDSA(t, elliptic.P521()), newEd25519(t)
	encryption := newRSA(t, 2048)
	i.add("rsa", rsaKey)
	i.add("pss", rsaKey, "alg", `"PS256"`)
	i.add("p256", p256, "use", `"sig"`, "key_ops", `["verify"]`)
	i.add("p384", p384)
	i.add("p521", p521)
	i.add("ed", ed)
	i.add("enc", encryption, "use", `"enc"`)
	i.add("ops", encryption, "key_ops", `["encrypt"]`)
	i.add("oaep", encryption, "alg", `"RSA-OAEP"`)
	const leeway = 5 * time.Second
	o := AuthOptions{Issuer: "https://clerk.example", Audience: "mythic", Leeway: leeway}
	alone := i.verifier(t, o)
	o.JWTSecret = jwtSecret
	both := i.verifier(t, o)

	rs := func(change ...func(map[string]any, jwt.MapClaims)) string {
		return i.sign(jwt.SigningMethodRS256, rsaKey, "rsa", change...)
	}
	claim := func(name string, value any) string {
		return rs(func(_ map[string]any, c jwt.MapClaims) { c[name] = value })
	}
	without := func(name string) string { return rs(func(_ map[string]any, c jwt.MapClaims) { delete(c, name) }) }
	header := func(name string, value any) string {
		return rs(func(h map[string]any, _ jwt.MapClaims) { h[name] = value })
	}
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, token := range map[string]string{
		"RS256": rs(), "RS384": i.sign(jwt.SigningMethodRS384, rsaKey, "rsa"), "RS512": i.sign(jwt.SigningMethodRS512, rsaKey, "rsa"),
		"PS256": i.sign(jwt.SigningMethodPS256, rsaKey, "pss"), "PS512": i.sign(jwt.SigningMethodPS512, rsaKey, "rsa"),
		"ES256": i.sign(jwt.SigningMethodES256, p256, "p256"), "ES384": i.sign(jwt.SigningMethodES384, p384, "p384"),
		"ES512": i.sign(jwt.SigningMethodES512, p521, "p521"), "EdDSA": i.sign(jwt.SigningMethodEdDSA, ed, "ed"),
		"no kid, and one key that fits": i.sign(jwt.SigningMethodES256, p256, ""),
		"expired within the leeway":     claim("exp", in(-2*time.Second)),
		"a clock that is ahead":         claim("iat", in(2*time.Second)),
	} {
		accepts(t, alone, name, token)
		accepts(t, both, name, token)
	}
	accepts(t, both, "HS256", i.sign(jwt.SigningMethodHS256, []byte(jwtSecret), ""))
	accepts(t, both, "HS256 with a kid", i.sign(jwt.SigningMethodHS256, []byte(jwtSecret), "rsa"))
	accepts(t, both, "HS256 without exp", i.sign(jwt.SigningMethodHS256, []byte(jwtSecret), "", func(_ map[string]any, c jwt.MapClaims) { delete(c, "exp") }))
	refuses(t, alone, "HS256 where there is no secret", i.sign(jwt.SigningMethodHS256, []byte(jwtSecret), ""))

	der, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	other := newRSA(t, 2048)
	parts := strings.Split(rs(), ".")
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"user_1","iss":"https://clerk.example","aud":"mythic","exp":9999999999}`))
	// What the curve check of ours alone refuses: a signature of the right length.
	es384as256 := strings.Split(i.sign(jwt.SigningMethodES384, p384, "p384"), ".")
	bad := map[string]string{
		"none":                             i.sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "rsa"),
		"HS256 with the public key as PEM": i.sign(jwt.SigningMethodHS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "rsa"),
		"HS256 with the public key as DER": i.sign(jwt.SigningMethodHS256, der, "rsa"),
		"HS256 with the modulus":           i.sign(jwt.SigningMethodHS256, rsaKey.N.Bytes(), "rsa"),
		"HS256 with the key set":           i.sign(jwt.SigningMethodHS256, i.set(), "rsa"),
		"HS256 with nothing":               i.sign(jwt.SigningMethodHS256, []byte{}, ""),
		"HS384":                            i.sign(jwt.SigningMethodHS384, []byte(jwtSecret), ""),
		"a key of somebody else":           i.sign(jwt.SigningMethodRS256, other, "rsa"),
		"a kid of nobody":                  i.sign(jwt.SigningMethodRS256, other, "other"),
		"another's kid":                    i.sign(jwt.SigningMethodES256, p256, "ed"),
		"no kid, and two keys that fit":    i.sign(jwt.SigningMethodPS256, rsaKey, ""),
		"an empty kid":                     header("kid", ""),
		"a kid that is a number":           header("kid", 7),
		"another method than the key's":    i.sign(jwt.SigningMethodRS256, rsaKey, "pss"),
		"a key for encryption, by use":     i.sign(jwt.SigningMethodRS256, encryption, "enc"),
		"a key for encryption, by key_ops": i.sign(jwt.SigningMethodRS256, encryption, "ops"),
		"a key for encryption, by alg":     i.sign(jwt.SigningMethodRS256, encryption, "oaep"),
		"another curve":                    strings.Replace(strings.Join(es384as256, "."), es384as256[0], base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"p384"}`)), 1),
		"a key in the token":               i.sign(jwt.SigningMethodRS256, other, "x", func(h map[string]any, _ jwt.MapClaims) { h["jwk"] = map[string]any{"kty": "RSA", "kid": "x"} }),
		"critical":                         header("crit", []string{"exp"}),
		"expired":                          claim("exp", in(-leeway-2*time.Second)),
		"without exp":                      without("exp"),
		"not yet valid":                    claim("nbf", in(leeway+30*time.Second)),
		"from the future":                  claim("iat", in(leeway+30*time.Second)),
		"another issuer":                   claim("iss", "https://evil.example"),
		"no issuer":                        without("iss"),
		"another audience":                 claim("aud", "else"),
		"no audience":                      without("aud"),
		"no subject":                       without("sub"),
		"a long subject":                   claim("sub", strings.Repeat("x", 513)),
		"another's signature":              parts[0] + "." + forged + "." + parts[2],
		"no signature":                     parts[0] + "." + parts[1] + ".",
		"signed twice":                     base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"rsa","cty":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(rs())) + "." + parts[2],
		"two signatures":                   rs() + "." + parts[2],
		"five parts":                       rs() + ".x.y",
		"padded":                           rs() + "==",
		"nothing":                          "",
		"dots":                             "..",
	}
	for name, token := range bad {
		refuses(t, alone, name, token)
		refuses(t, both, name, token)
	}
	refuses(t, newTokens(AuthOptions{}, nil), "whatever, where there are neither keys nor secret", i.sign(jwt.SigningMethodHS256, []byte{}, ""))
}

// TestARevokedTokenHasNoOtherSpelling makes the other texts that its signature is good
// in, which anybody can.
func TestARevokedTokenHasNoOtherSpelling(t *testing.T) {
	i := newIssuer(t)
	curves := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}
	for alg, curve := range curves {
		i.add(alg, newECDSA(t, curve))
	}
	ed := newEd25519(t)
	i.add("ed", ed)
	v := i.verifier(t, AuthOptions{})
	for alg, curve := range curves {
		token := i.sign(jwt.GetSigningMethod(alg), i.private[alg], alg)
		parts := strings.Split(token, ".")
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		s := signature[len(signature)/2:]
		new(big.Int).Sub(curve.Params().N, new(big.Int).SetBytes(s)).FillBytes(s)
		twin := parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(signature)
		accepts(t, v, alg, twin)
		for _, shown := range []string{token, twin} {
			got, err := v.verify(t.Context(), shown)
			if err != nil {
				t.Fatal(err)
			}
			for _, revoked := range []string{token, twin} {
				if !cache.RevokedToken(cache.HashToken(revoked)).Hits(got.token) {
					t.Errorf("%s: revoked in one spelling, the other opens", alg)
				}
			}
		}
	}
	token := i.sign(jwt.SigningMethodEdDSA, ed, "ed")
	last := token[len(token)-1] // four of its six bits are not the signature's
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	refuses(t, v, "other bits behind the signature", token[:len(token)-1]+string(digits[strings.IndexByte(digits, last)^1]))
	refuses(t, v, "a line break", token[:len(token)-3]+"\n"+token[len(token)-3:])
}

// A curve has one method. The signature check would not say so: it takes r and s of
// any curve.
func TestAKeyFitsItsMethodsAlone(t *testing.T) {
	keys := map[string]publicKey{
		"RS256 RS384 RS512 PS256 PS384 PS512": {key: newRSA(t, 2048).Public()},
		"PS384":                               {key: newRSA(t, 2048).Public(), alg: "PS384"},
		"ES256":                               {key: newECDSA(t, elliptic.P256()).Public()},
		"ES384":                               {key: newECDSA(t, elliptic.P384()).Public()},
		"ES512":                               {key: newECDSA(t, elliptic.P521()).Public()},
		"EdDSA":                               {key: newEd25519(t).Public()},
		"":                                    {key: []byte("a secret")},
	}
	for want, key := range keys {
		var got []string
		for _, alg := range append([]string{"HS256", "none", ""}, asymmetric...) {
			if key.fits(alg) {
				got = append(got, alg)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%T fits %q, not %q", key.key, got, want)
		}
	}
}

func TestKeySetsAreRead(t *testing.T) {
	i := newIssuer(t)
	i.add("good", newECDSA(t, elliptic.P256()))
	good := string(i.keys["good"])
	i.add("short", newRSA(t, 1024))
	short := string(i.keys["short"])
	secret := `{"kty":"oct","kid":"s","k":"c2VjcmV0"}`
	set := func(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }
	for name, c := range map[string]struct {
		text string
		keys int
		says string
	}{
		"one":                {set(good), 1, ""},
		"beside what is not": {set(secret, `7`, `{}`, `{"kty":"RSA","n":"!"}`, short, good, `{"kty":"future"}`), 1, ""},
		"certificates":       {set(strings.Replace(good, "{", `{"x5c":["no certificate"],"x5u":"http://evil.example",`, 1)), 1, ""},
		"secrets":            {set(secret), 0, "no key"},
		"a short one":        {set(short), 0, "no key"},
		"none":               {set(), 0, "no key"},
		"an object":          {`{}`, 0, "no key"},
		"no JSON":            {`<html>`, 0, "no JSON Web Key Set"},
		"many":               {set(strings.Repeat(secret+",", maxKeys) + good), 0, "101 keys"},
	} {
		keys, err := parseKeys([]byte(c.text))
		if len(keys) != c.keys || c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %d keys, %v", name, len(keys), err)
		}
	}
}

// TestKeysAreReplaced lets an issuer take new keys, be away, and answer nonsense.
func TestKeysAreReplaced(t *testing.T) {
	i := newIssuer(t)
	first, second := newECDSA(t, elliptic.P256()), newEd25519(t)
	i.add("first", first)
	gone := make(chan struct{}, 8)
	keys := newKeyring(&urlSource{url: i.url, client: http.DefaultClient}, time.Hour, func() { gone <- struct{}{} }, zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { keys.run(ctx) })
	defer group.Wait()
	defer cancel()
	v := newTokens(AuthOptions{}, keys)
	testserver.Eventually(t, "the keys are read", keys.ready)

	old, fresh := i.sign(jwt.SigningMethodES256, first, "first"), i.sign(jwt.SigningMethodEdDSA, second, "second")
	accepts(t, v, "the old key", old)
	i.add("second", second)
	accepts(t, v, "a new key, at once", fresh) // its kid was not known
	before := i.fetched()
	for range 5 {
		refuses(t, v, "a key of nobody", i.sign(jwt.SigningMethodEdDSA, second, "nobody"))
	}
	if n := i.fetched() - before; n > 1 {
		t.Errorf("five tokens of nobody made the keys be read %d times", n)
	}
	i.goAway(true)
	if err := keys.read(ctx); err == nil {
		t.Error("the issuer is away, and the keys were read")
	}
	accepts(t, v, "the last known key", old)
	i.goAway(false)
	for range len(gone) {
		<-gone
	}
	i.drop("first")
	if err := keys.read(ctx); err != nil {
		t.Fatal(err)
	}
	<-gone // what was verified with it is not remembered
	refuses(t, v, "a key that has gone", old)
	i.drop("second")
	if err := keys.read(ctx); err == nil {
		t.Error("no key at all is no error")
	}
	accepts(t, v, "the last known key, since nobody means to have none", fresh)
}

// An API that starts before its issuer says so, and lets people in once the keys come.
func TestAnIssuerThatIsAwayAtTheStart(t *testing.T) {
	i := newIssuer(t)
	i.goAway(true)
	key := newECDSA(t, elliptic.P256())
	i.add("key", key)
	w := begin(t, func(o *Options) { o.Auth.JWKS = i.url + "/jwks.json" })
	w.put("user_books", "user_1", fill(t, books("user_1")))
	theirs := "Bearer " + i.sign(jwt.SigningMethodES256, key, "key")
	forged := "Bearer " + i.sign(jwt.SigningMethodES256, newECDSA(t, elliptic.P256()), "key")
	w.get("/books/my", "Authorization", theirs).wants(t, 503, map[string]string{"Retry-After": "1"})
	if err := w.server.AuthReady(); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("ready: %v", err)
	}
	w.get("/books/my", "Authorization", token(t, "user_1")).wants(t, 200, nil) // the secret's
	w.get("/books/my", "Authorization", forged).wants(t, 503, nil)             // nobody can tell yet
	i.goAway(false)
	testserver.Eventually(t, "the keys have come", w.server.AuthReady)
	w.get("/books/my", "Authorization", theirs).wants(t, 200, nil)
	w.get("/books/my", "Authorization", forged).wants(t, 401, nil)
}

func TestAKeySetComesFromAFile(t *testing.T) {
	i := newIssuer(t)
	key, next := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	i.add("key", key)
	name := filepath.Join(t.TempDir(), "jwks.json")
	write := func() {
		if err := os.WriteFile(name, i.set(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	w := begin(t, func(o *Options) { o.Auth = AuthOptions{JWKS: name} })
	w.put("user_books", "user_1", fill(t, books("user_1")))
	testserver.Eventually(t, "the keys are read", w.server.AuthReady)
	w.get("/books/my", "Authorization", "Bearer "+i.sign(jwt.SigningMethodES256, key, "key")).wants(t, 200, nil)
	i.add("next", next)
	write()
	w.get("/books/my", "Authorization", "Bearer "+i.sign(jwt.SigningMethodES256, next, "next")).wants(t, 200, nil)
	w.get("/books/my", "Authorization", token(t, "user_1")).wants(t, 401, nil) // there is no secret
}

func TestKeySourcesAreBounded(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(" ", maxKeySet+1)) })
	mux.HandleFunc("/once", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good", http.StatusFound) })
	mux.HandleFunc("/again", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) })
	plain := httptest.NewServer(mux)
	defer plain.Close()
	mux.HandleFunc("/down", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain.URL+"/good", http.StatusFound) })
	safe := httptest.NewTLSServer(mux)
	defer safe.Close()
	for where, says := range map[string]string{
		plain.URL + "/good": "", plain.URL + "/once": "", safe.URL + "/good": "", safe.URL + "/once": "", plain.URL + "/long": "longer than", plain.URL + "/again": "redirects",
		plain.URL + "/none": "404", safe.URL + "/down": "away from https", strings.Replace(plain.URL, "//", "//u:hunter2@", 1) + "/again": "redirects",
	} {
		u, err := url.Parse(where)
		if err != nil {
			t.Fatal(err)
		}
		s := newURLSource(u)
		if s.client.Timeout != fetchTimeout {
			t.Error("there is no end to its patience")
		}
		s.client.Transport = safe.Client().Transport
		_, err = s.read(t.Context())
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v", where, err)
		}
		s.client.CloseIdleConnections()
	}
	for name, warns := range map[string]bool{
		"https://issuer.example/keys": false, "http://localhost:1/keys": false, "http://127.0.0.1/keys": false, "http://[::1]/keys": false,
		"http://auth:8080/keys": true, "http://localhost.evil.example/keys": true, "/etc/keys.json": false,
	} {
		if _, _, unsafe, err := newKeySource(name); err != nil || (unsafe != "") != warns {
			t.Errorf("%s: %q, %v", name, unsafe, err)
		}
	}
}
