package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"pgregory.net/rapid"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// raw is a token without its scheme.
func raw(authorization string) string { return strings.TrimPrefix(authorization, "Bearer ") }

// hears waits until the API hears of revocations.
func (w *world) hears() {
	w.t.Helper()
	testserver.Eventually(w.t, "the API hears of revocations", func() error {
		if !w.server.auth.door.feed.Hears() {
			return errors.New("not yet")
		}
		return nil
	})
}

// revoke revokes as the worker does.
func (w *world) revoke(r cache.Revocation, at time.Time) {
	w.t.Helper()
	r.At = at
	if err := w.store.Revoke(w.t.Context(), []cache.Revocation{r}); err != nil {
		w.t.Fatal(err)
	}
}

// hide writes a revocation that nobody announces.
func (w *world) hide(hash cache.TokenHash) {
	w.t.Helper()
	if err := w.client.Set(w.t.Context(), "mythic:session:{"+hash.String()+"}", "1r"+strconv.FormatInt(time.Now().UnixMilli(), 10), time.Hour).Err(); err != nil {
		w.t.Fatal(err)
	}
}

// refusedWithin waits until a token is refused, and returns how long that took.
func (w *world) refusedWithin(authorization string) time.Duration {
	w.t.Helper()
	begun := time.Now()
	testserver.Eventually(w.t, "the token is refused", func() error {
		if a := w.get("/books/my", "Authorization", authorization); a.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("%d", a.StatusCode)
		}
		return nil
	})
	return time.Since(begun)
}

func TestARevokedTokenIsOutAtOnce(t *testing.T) {
	w := begin(t, func(o *Options) { o.Auth.Leeway = 10 * time.Second })
	w.hears()
	w.put("user_books", "user_1", fill(t, books("user_1")))
	now := time.Now().Add(-time.Minute) // or who comes back afterwards would come from the future
	with := func(jti string) string {
		return token(t, "user_1", func(c jwt.MapClaims) {
			// A clock of its own would make two tokens of one jti, now and then.
			c["jti"], c["iat"], c["exp"] = jti, now.Add(-time.Minute).Unix(), now.Add(time.Hour).Unix()
		})
	}
	for _, c := range []struct {
		name, token string
		r           cache.Revocation
	}{
		{"by its hash", with("a"), cache.RevokedToken(cache.HashToken(raw(with("a"))))},
		{"by its jti", with("b"), cache.RevokedJTI("b")},
		{"by its user", with("c"), cache.RevokedSub("user_1")}, // which is the end of all of them
	} {
		w.get("/books/my", "Authorization", c.token).wants(t, 200, nil)
		w.revoke(c.r, now)
		// A bound for a busy machine; it takes about a millisecond.
		if took := w.refusedWithin(c.token); took > 2*time.Second {
			t.Errorf("%s: it was let in for %s", c.name, took)
		}
		a := w.get("/status/RUN1", "Authorization", c.token) // where no token is needed, too
		a.wants(t, 401, map[string]string{"WWW-Authenticate": `.*error="invalid_token".*revoked.*`})
	}
	// Whoever comes back afterwards is let in, but not by a clock that may be ahead; nor is
	// who does not say when he came.
	for after, status := range map[time.Duration]int{time.Second: 401, 9 * time.Second: 401, 11 * time.Second: 200} {
		w.get("/books/my", "Authorization", token(t, "user_1", func(c jwt.MapClaims) { c["iat"] = now.Add(after).Unix() })).wants(t, status, nil)
	}
	w.get("/books/my", "Authorization", token(t, "user_1")).wants(t, 401, nil)
	w.put("user_books", "user_2", fill(t, books("user_2")))
	w.get("/books/my", "Authorization", token(t, "user_2")).wants(t, 200, nil)
}

// A caller that is remembered costs no look into Redis while revocations are heard.
// When they are not, each token is looked up.
func TestAHotCallerIsNotLookedUp(t *testing.T) {
	w := begin(t)
	w.hears()
	w.put("user_books", "user_1", fill(t, books("user_1")))
	theirs := token(t, "user_1")
	w.get("/books/my", "Authorization", theirs).wants(t, 200, nil)
	w.hide(cache.HashToken(raw(theirs)))
	w.get("/books/my", "Authorization", theirs).wants(t, 200, nil)
	// The subscription is cut, and what was hidden meanwhile comes to light.
	if err := w.client.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "what was remembered is looked up again", func() error {
		if good(w.server.auth.door.memory, raw(theirs), time.Now()) {
			return errors.New("not yet")
		}
		return nil
	})
	w.get("/books/my", "Authorization", theirs).wants(t, 401, nil)

	deaf := newDoorkeeper(w.store, newTokens(AuthOptions{JWTSecret: jwtSecret}, nil).verify, 0, w.server.log)
	other := raw(token(t, "user_2"))
	if c, err := deaf.caller(t.Context(), other); err != nil || c.user != "user_2" {
		t.Errorf("%+v %v", c, err)
	}
	w.hide(cache.HashToken(other))
	for range 2 {
		if c, err := deaf.caller(t.Context(), other); err == nil {
			t.Errorf("nobody hears, and %+v is let in without a look", c)
		}
	}
}

// Redis being away, who was let in before still is, and nobody else.
func TestTokensWithoutRedis(t *testing.T) {
	w := begin(t)
	door := w.server.auth.door
	known, unknown := raw(token(t, "user_1")), raw(token(t, "user_2"))
	if _, err := door.caller(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	shared.Stop()
	testserver.Eventually(t, "the link is lost", func() error {
		if door.feed.Hears() {
			return errors.New("not yet")
		}
		return nil
	})
	if c, err := door.caller(t.Context(), known); err != nil || c.user != "user_1" {
		t.Errorf("%+v %v", c, err)
	}
	if c, err := door.caller(t.Context(), unknown); err == nil || c.user != "" {
		t.Errorf("%+v is let in, and nobody knows whether the token was revoked", c)
	}
	w.get("/books/my", "Authorization", "Bearer "+unknown).wants(t, 503, map[string]string{"Retry-After": "1"})
	w.get("/books/my", "Authorization", "Bearer "+unknown+"A").wants(t, 401, nil) // that can be said without it
}

// TestAFrozenRedisHoldsUpNobodyWhoIsKnown stops Redis from running without closing a
// connection, until the API does not hear of revocations any more.
func TestAFrozenRedisHoldsUpNobodyWhoIsKnown(t *testing.T) {
	w := begin(t, nearBy(t))
	w.hears()
	w.put("user_books", "user_1", fill(t, books("user_1")))
	theirs := token(t, "user_1")
	w.settle("/books/my", "Authorization", theirs)
	deaf := newDoorkeeper(w.store, newTokens(AuthOptions{JWTSecret: jwtSecret}, nil).verify, 0, w.server.log)
	if _, err := deaf.caller(t.Context(), raw(theirs)); err != nil {
		t.Fatal(err)
	}
	if err := w.redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer w.redis.Thaw()
	testserver.Eventually(t, "nothing is heard", func() error {
		if w.server.auth.door.feed.Hears() {
			return errors.New("not yet")
		}
		return nil
	})
	begun, slowest := time.Now(), time.Duration(0)
	for range 50 {
		asked := time.Now()
		w.get("/books/my", "Authorization", theirs).wants(t, 200, map[string]string{"X-Cache": "STALE"})
		slowest = max(slowest, time.Since(asked))
	}
	// Once in a second one of them waits for a quarter of a second.
	if took := time.Since(begun); slowest >= redisTimeout || took >= 5*time.Second {
		t.Errorf("50 requests took %s, and one of them %s", took, slowest)
	}
	if _, err := deaf.caller(t.Context(), raw(theirs)); err != nil || deaf.silent.asks(time.Now()) {
		t.Errorf("%v; and the next caller waits, too", err)
	}
	if err := w.redis.Thaw(); err != nil {
		t.Fatal(err)
	}
	w.hide(cache.HashToken(raw(theirs)))
	testserver.Eventually(t, "tokens are looked up again", func() error {
		if _, err := deaf.caller(t.Context(), raw(theirs)); err == nil {
			return errors.New("not yet")
		}
		return nil
	})
	if !deaf.silent.asks(time.Now()) {
		t.Error("Redis answers, and tokens are not looked up")
	}
	w.get("/books/my", "Authorization", token(t, "user_1", func(c jwt.MapClaims) { c["jti"] = "another" })).wants(t, 200, nil)
}

// lapse has a token looked up again, as if it had been remembered for its five minutes.
func (w *world) lapse(authorization string, change func(*verified)) {
	w.t.Helper()
	m := w.server.auth.door.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	v, kept := m.new.tokens[cache.HashToken(raw(authorization))]
	if !kept {
		w.t.Fatal("the token is not remembered")
	}
	v.until = time.Now()
	change(&v)
	m.new.add(v)
}

// The five minutes of a hot caller end while Redis is away. He reads on, until his token
// ends.
func TestATokenOutlastsAnOutage(t *testing.T) {
	w := begin(t, nearBy(t))
	w.hears()
	users := []string{"hot", "ended", "revoked", "old"}
	bearers := map[string]string{}
	for _, user := range users {
		w.put("user_books", user, fill(t, books(user)))
		bearers[user] = token(t, user)
		w.settle("/books/my", "Authorization", bearers[user])
	}
	w.revoke(cache.RevokedSub("revoked"), time.Now())
	w.refusedWithin(bearers["revoked"])
	looked := time.Now()
	testserver.Eventually(t, "Redis answers, though nobody looks", func() error {
		if !w.server.auth.door.answered().After(looked) {
			return errors.New("not yet")
		}
		return nil
	})
	if err := w.redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer w.redis.Thaw()
	w.lapse(bearers["hot"], func(*verified) {})
	w.lapse(bearers["ended"], func(v *verified) { v.end = time.Now() })
	w.lapse(bearers["old"], func(v *verified) { v.until = time.Now().Add(-w.store.StaleFor() - time.Minute) })
	begun := time.Now()
	for range 20 {
		w.get("/books/my", "Authorization", bearers["hot"]).wants(t, 200, map[string]string{"X-Cache": "HIT|STALE"})
	}
	if took := time.Since(begun); took >= redisTimeout {
		t.Errorf("20 requests took %s", took)
	}
	var group sync.WaitGroup
	for _, user := range []string{"ended", "revoked", "old"} {
		group.Go(func() {
			var p *Problem
			if c, err := w.server.auth.door.caller(t.Context(), raw(bearers[user])); !errors.As(err, &p) || p.Status != http.StatusServiceUnavailable {
				t.Errorf("%s: %+v %v", user, c, err)
			}
		})
	}
	group.Wait()
	testserver.Eventually(t, "nothing is heard", func() error {
		if w.server.auth.door.feed.Hears() {
			return errors.New("not yet")
		}
		return nil
	})
	w.get("/books/my", "Authorization", bearers["hot"]).wants(t, 200, map[string]string{"X-Cache": "STALE"})
	if err := w.redis.Thaw(); err != nil {
		t.Fatal(err)
	}
	w.hide(cache.HashToken(raw(bearers["hot"])))
	w.refusedWithin(bearers["hot"]) // it is looked up once Redis is back
	w.get("/books/my", "Authorization", bearers["revoked"]).wants(t, 401, nil)
}

// A token that ends by its own word in an outage is out, however it is remembered.
func TestATokenEndsInAnOutage(t *testing.T) {
	w := begin(t)
	door := w.server.auth.door
	ends := raw(token(t, "user_1", func(c jwt.MapClaims) { c["exp"] = time.Now().Add(2 * time.Second).Unix() }))
	if _, err := door.caller(t.Context(), ends); err != nil {
		t.Fatal(err)
	}
	shared.Stop()
	var p *Problem
	testserver.Eventually(t, "the token is refused", func() error {
		if c, err := door.caller(t.Context(), ends); !errors.As(err, &p) {
			return fmt.Errorf("%+v %w", c, err)
		}
		return nil
	})
	if p.Status != http.StatusUnauthorized {
		t.Errorf("%v", p)
	}
}

// Those who show tokens that nobody knows wait in a line of their own, which is bounded.
func TestStrangersWaitInALineOfTheirOwn(t *testing.T) {
	w := begin(t, func(o *Options) { o.Auth = AuthOptions{Mode: AuthSession} })
	w.hears()
	if err := w.store.CreateSessions(t.Context(), []cache.Session{{Hash: cache.HashToken("known"), Sub: "user_1", Created: time.Now()}}, time.Hour); err != nil {
		t.Fatal(err)
	}
	w.get("/books/my", "Authorization", "Bearer known")
	if err := w.redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer w.redis.Thaw()
	w.lapse("known", func(*verified) {})
	door := w.server.auth.door
	const strangers = lookWaiting + 100
	refused := make(chan error, strangers)
	for i := range strangers {
		go func() {
			_, err := door.caller(t.Context(), fmt.Sprint("stranger ", i))
			refused <- err
		}()
	}
	kinds := map[string]int{}
	one := func() {
		var p *Problem
		if err := <-refused; !errors.As(err, &p) {
			t.Fatalf("a stranger is let in: %v", err)
		}
		kinds[p.Type]++
	}
	for range strangers - lookWaiting { // at once: the others wait for Redis
		one()
	}
	if n := len(door.strangers.looking); n != lookAtOnce {
		t.Errorf("%d look at once", n)
	}
	if kinds["/docs#busy"] != strangers-lookWaiting {
		t.Errorf("they were told %v", kinds)
	}
	begun := time.Now()
	if c, err := door.caller(t.Context(), "known"); err != nil || c.user != "user_1" {
		t.Errorf("%+v %v", c, err)
	}
	if took := time.Since(begun); took >= redisTimeout {
		t.Errorf("who is known was held up for %s", took)
	}
	w.get("/books/my", "Authorization", "Bearer another").wants(t, 503, map[string]string{"Retry-After": "1"})
	for range lookWaiting {
		one()
	}
	if n := len(door.strangers.waiting) + len(door.strangers.looking); n != 0 {
		t.Errorf("%d places were not given back", n)
	}
}

// However many strangers there are, who is known is looked up, and out where he was revoked.
func TestACrowdHidesNobody(t *testing.T) {
	w := begin(t)
	door := w.server.auth.door
	known := token(t, "user_1")
	if _, err := door.caller(t.Context(), raw(known)); err != nil {
		t.Fatal(err)
	}
	w.lapse(known, func(*verified) {})
	w.hide(cache.HashToken(raw(known)))
	for range lookWaiting {
		door.strangers.waiting <- struct{}{}
	}
	w.get("/books/my", "Authorization", token(t, "user_2")).wants(t, 503, map[string]string{"Retry-After": "1"})
	w.get("/books/my", "Authorization", known).wants(t, 401, nil)
}

// Nobody hears of revocations, and Redis answers: who was revoked comes in by no crowd. Who
// has no turn while Redis is away is let in as before.
func TestACrowdLetsNobodyIn(t *testing.T) {
	w := begin(t)
	for name, crowd := range map[string]func(*queue) (places chan struct{}, n int){
		"full": func(q *queue) (chan struct{}, int) { return q.waiting, lookWaiting },
		"slow": func(q *queue) (chan struct{}, int) { return q.looking, lookAtOnce },
	} {
		door := newDoorkeeper(w.store, newTokens(AuthOptions{JWTSecret: jwtSecret}, nil).verify, 0, w.server.log)
		theirs := raw(token(t, "user_"+name))
		asks := func(when string, want int) {
			t.Helper()
			got, p := http.StatusOK, (*Problem)(nil)
			if _, err := door.caller(t.Context(), theirs); errors.As(err, &p) {
				got = p.Status
			}
			if got != want {
				t.Errorf("%s, %s: %d, not %d", name, when, got, want)
			}
		}
		asks("before", 200)
		w.hide(cache.HashToken(theirs))
		places, n := crowd(door.known)
		for range n {
			places <- struct{}{}
		}
		whileAnswers(door, func() { asks("Redis answers others", 503) })
		if name == "slow" {
			asks("nobody was answered meanwhile", 200)
		}
		door.silent.until.Store(1) // one looks, and finds that it did not answer before
		asks("Redis is away", 200)
		door.silent.heard(true)
		for range n {
			<-places
		}
		asks("the crowd is gone", 401)
	}
}

// whileAnswers does something while others who look tokens up are answered.
func whileAnswers(d *doorkeeper, do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	for {
		select {
		case <-done:
			return
		default:
			d.silent.heard(true)
			runtime.Gosched()
		}
	}
}

func TestSilence(t *testing.T) {
	s, now := newSilence(), time.Now()
	asking := func(want int, at time.Time) {
		t.Helper()
		asked := 0
		for range 3 {
			if s.asks(at) {
				asked++
			}
		}
		if asked != want {
			t.Errorf("%d of 3 ask %s later, want %d", asked, at.Sub(now), want)
		}
	}
	asking(3, now)
	s.heard(false)
	asking(0, now)
	asking(1, now.Add(time.Minute))
	asking(0, now.Add(time.Minute+lookAgain/2))
	asking(1, now.Add(time.Minute+lookAgain))
	if !s.answered().IsZero() {
		t.Error("it never answered")
	}
	s.heard(true)
	asking(3, now)
	answered := s.answered()
	s.heard(false)
	if answered.Before(now) || !s.answered().Equal(answered) {
		t.Errorf("it answered at %s, and then at %s", answered, s.answered())
	}
}

// TestOpaqueSessions has no token in Redis, and lets those in whose hashes are.
func TestOpaqueSessions(t *testing.T) {
	const ttl = 4 * time.Second // its use is written down each second
	w := begin(t, func(o *Options) { o.Auth = AuthOptions{Mode: AuthSession, SessionTTL: ttl} })
	w.hears()
	w.put("user_books", "user_1", fill(t, books("user_1")))
	const theirs = "0123456789abcdefghijklmnopqrstuv"
	session := cache.Session{Hash: cache.HashToken(theirs), Sub: "user_1", Created: time.Now()}
	create := func(s cache.Session, ttl time.Duration) {
		t.Helper()
		if err := w.store.CreateSessions(t.Context(), []cache.Session{s}, ttl); err != nil {
			t.Fatal(err)
		}
	}
	get := func(authorization string) *answer { return w.get("/books/my", "Authorization", authorization) }
	get("Bearer "+theirs).wants(t, 401, nil)
	create(session, ttl)
	a := get("Bearer " + theirs)
	a.wants(t, 200, nil)
	if string(a.body) != books("user_1") {
		t.Errorf("%s", a.body)
	}
	memory := w.server.auth.door.memory
	if good(memory, theirs, time.Now().Add(ttl)) || !good(memory, theirs, time.Now().Add(ttl-time.Second)) {
		t.Error("a session that is not used is remembered for another time than it lives")
	}
	get(token(t, "user_1")).wants(t, 401, nil) // one that is signed is as opaque as any
	get("Bearer "+session.Hash.String()).wants(t, 401, nil)
	get("Bearer "+strings.Repeat("x", maxToken+1)).wants(t, 401, map[string]string{"WWW-Authenticate": ".*too long.*"})
	w.get("/books/my", "X-User-Id", "user_1").wants(t, 401, nil)

	// It is used, and lives longer than it would.
	key := "mythic:session:{" + session.Hash.String() + "}"
	testserver.Eventually(t, "its use is written down", func() error {
		get("Bearer " + theirs)
		end, err := w.client.PExpireTime(t.Context(), key).Result()
		if late := time.UnixMilli(end.Milliseconds()).Sub(session.Created); err != nil || late < ttl+time.Second {
			return fmt.Errorf("it ends %s after its creation, %w", late, err)
		}
		return nil
	})
	names, err := w.client.Keys(t.Context(), "*"+theirs+"*").Result()
	if err != nil || len(names) != 0 {
		t.Errorf("keys %q, %v", names, err)
	}
	w.revoke(cache.RevokedToken(session.Hash), time.Now())
	w.refusedWithin("Bearer " + theirs)

	ends := cache.Session{Hash: cache.HashToken("ends"), Sub: "user_1", Created: time.Now(), Expires: time.Now().Add(1500 * time.Millisecond)}
	create(ends, ttl)
	get("Bearer ends").wants(t, 200, nil)
	w.refusedWithin("Bearer ends") // by itself, however much it is used
}

// TestAKeyIsTheCallersOwn has callers in their thousands say in every way that they are
// somebody else.
func TestAKeyIsTheCallersOwn(t *testing.T) {
	w := begin(t)
	w.hears()
	for victim := range 10 {
		name := fmt.Sprintf("victim_%d", victim)
		w.put("user_books", name, fill(t, books(name)))
	}
	callers := 0
	rapid.Check(t, func(r *rapid.T) {
		for range 20 {
			callers++
			user := rapid.StringMatching(`[a-z_:|@.%{}/ ]{1,8}`).Draw(r, "user") + strconv.Itoa(callers)
			other := "victim_" + rapid.StringMatching(`[0-9]`).Draw(r, "other")
			w.put("user_books", user, fill(t, books(user)))
			path := rapid.SampledFrom([]string{"/books/my", "/books/my?sub=%s", "/books/my?user=%s&key=%s"}).Draw(r, "path")
			request := httptest.NewRequest(http.MethodGet, strings.ReplaceAll(path, "%s", other), http.NoBody)
			request.Header.Set("Authorization", token(t, user))
			for _, name := range []string{"X-User-Id", "X-Forwarded-User", "X-Sub", "Cookie", "From", "X-Original-Url", "Host"} {
				if rapid.Bool().Draw(r, name) {
					request.Header.Set(name, other)
				}
			}
			recorded := httptest.NewRecorder()
			w.server.Handler().ServeHTTP(recorded, request)
			if recorded.Code != http.StatusOK || recorded.Body.String() != books(user) {
				r.Fatalf("%q, who says that it is %q, gets %d %s", user, other, recorded.Code, recorded.Body)
			}
		}
	})
	if callers < 2000 {
		t.Errorf("only %d callers", callers)
	}
}

// FuzzTokens throws texts at the verification of tokens. None may panic, and whatever
// is let in carries a signature of ours.
func FuzzTokens(f *testing.F) {
	i := newIssuer(f)
	key := newEd25519(f)
	i.add("key", key)
	v := i.verifier(f, AuthOptions{JWTSecret: jwtSecret})
	good := []string{i.sign(jwt.SigningMethodHS256, []byte(jwtSecret), ""), i.sign(jwt.SigningMethodEdDSA, key, "key")}
	for _, seed := range append(good, "", ".", "..", "e30.e30.", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0.", "eyJhbGciOiJFZERTQSIsImtpZCI6W119.e30.AA") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		got, err := v.verify(context.Background(), token)
		if err != nil || token == good[1] {
			return
		}
		unsigned := token[:strings.LastIndexByte(token, '.')]
		mac := hmac.New(sha256.New, []byte(jwtSecret))
		mac.Write([]byte(unsigned))
		if token != unsigned+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) {
			t.Errorf("%q is let in as %+v", token, got.caller)
		}
	})
}
