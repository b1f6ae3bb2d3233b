package cache_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

const day = 24 * time.Hour

func create(t *testing.T, s *cache.Store, one cache.Session) {
	t.Helper()
	if err := s.CreateSessions(t.Context(), []cache.Session{one}, day); err != nil {
		t.Fatal(err)
	}
}

func revoke(t *testing.T, s *cache.Store, at time.Time, r ...cache.Revocation) {
	t.Helper()
	for i := range r {
		r[i].At = at
	}
	if err := s.Revoke(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func wantSession(t *testing.T, s *cache.Store, hash cache.TokenHash, sub string) cache.Session {
	t.Helper()
	got, ok, err := s.Session(t.Context(), hash)
	if err != nil || ok != (sub != "") || ok && (got.Sub != sub || got.Hash != hash) {
		t.Errorf("the session is %+v, %t, %v; it is to be %q's", got, ok, err, sub)
	}
	return got
}

func ttlOf(t *testing.T, s *cache.Store, key string) time.Duration {
	t.Helper()
	ttl, err := s.Client().PTTL(t.Context(), key).Result()
	if err != nil {
		t.Fatal(err)
	}
	return ttl
}

// keptFor returns for how long a revocation is to be kept. It must have no TTL.
func keptFor(t *testing.T, s *cache.Store, name string) time.Duration {
	t.Helper()
	if ttl := ttlOf(t, s, "mythic:session:{"+name+"}"); ttl != -1 {
		t.Errorf("the revocation has a TTL, %s, so Redis may evict it", ttl)
	}
	last, err := s.Client().ZScore(t.Context(), "mythic:revoked:index", name).Result()
	if err != nil {
		t.Fatal(err)
	}
	return time.Until(time.UnixMilli(int64(last)))
}

func TestASessionLivesWhileItIsUsed(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	now := time.Now()
	hash := cache.HashToken("opaque")
	key := "mythic:session:{" + hash.String() + "}"
	create(t, s, cache.Session{Hash: hash, Sub: "a.user:}{", Created: now.Add(-time.Hour)})
	got := wantSession(t, s, hash, "a.user:}{")
	if ttl := ttlOf(t, s, key); ttl > 23*time.Hour || ttl < 22*time.Hour {
		t.Errorf("it lives for %s", ttl)
	}
	for range 2 { // repeated, and by another: what is there stays
		create(t, s, cache.Session{Hash: hash, Sub: "b", Created: now})
		wantSession(t, s, hash, "a.user:}{")
	}
	if err := s.TouchSessions(t.Context(), []cache.Session{got}, day); err != nil {
		t.Fatal(err)
	}
	if ttl := ttlOf(t, s, key); ttl < day-time.Minute || ttl > day {
		t.Errorf("used, it lives for %s", ttl)
	}
	// One with an end has it, however much it is used; one that has ended does not come back.
	ends := cache.Session{Hash: cache.HashToken("ends"), Sub: "a", Created: now, Expires: now.Add(time.Hour)}
	create(t, s, ends)
	if err := s.TouchSessions(t.Context(), []cache.Session{wantSession(t, s, ends.Hash, "a")}, day); err != nil {
		t.Fatal(err)
	}
	if ttl := ttlOf(t, s, "mythic:session:{"+ends.Hash.String()+"}"); ttl > time.Hour {
		t.Errorf("used, it lives for %s past its end", ttl)
	}
	for _, over := range []cache.Session{{Created: now.Add(-2 * day)}, {Created: now.Add(-time.Hour), Expires: now.Add(-time.Second)}} {
		over.Hash, over.Sub = cache.HashToken("over"), "a"
		create(t, s, over)
		wantSession(t, s, over.Hash, "")
	}
	everything, err := s.Client().Keys(t.Context(), "*").Result()
	if err != nil || strings.Contains(strings.Join(everything, " "), "opaque") {
		t.Errorf("keys %q, %v", everything, err)
	}
}

func TestARevokedSessionStaysSo(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	now := time.Now()
	session := func(token string, created time.Time) cache.Session {
		return cache.Session{Hash: cache.HashToken(token), Sub: "user_1", Created: created}
	}
	one := session("one", now)
	create(t, s, one)
	revoke(t, s, now, cache.RevokedToken(one.Hash))
	create(t, s, one) // once more
	if err := s.TouchSessions(t.Context(), []cache.Session{one}, day); err != nil {
		t.Fatal(err)
	}
	wantSession(t, s, one.Hash, "")
	late := session("late", now) // revoked before its creation is heard of
	revoke(t, s, now, cache.RevokedToken(late.Hash))
	create(t, s, late)
	wantSession(t, s, late.Hash, "")

	create(t, s, session("before", now.Add(-time.Minute)))
	create(t, s, session("after", now.Add(time.Second)))
	revoke(t, s, now, cache.RevokedSub("user_1"))
	revoke(t, s, now.Add(-time.Hour), cache.RevokedSub("user_1")) // late
	wantSession(t, s, cache.HashToken("before"), "")
	wantSession(t, s, cache.HashToken("after"), "user_1")
	if err := s.Client().Set(t.Context(), "mythic:session:{"+cache.HashToken("odd").String()+"}", "9l1.0.user_1", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	wantSession(t, s, cache.HashToken("odd"), "")
}

// What has a session's hash is kept out for a day longer than the session could live,
// also when that is said twice; what is not in Redis, for as long as any token.
func TestARevocationIsKeptAsLongAsItsSessionCouldLive(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	now := time.Now()
	session := cache.Session{Hash: cache.HashToken("one"), Sub: "user_1", Created: now}
	create(t, s, session)
	kept := func(says string, r cache.Revocation, want time.Duration) {
		t.Helper()
		revoke(t, s, now, r)
		if left := keptFor(t, s, r.Name()); left > want || left < want-time.Minute {
			t.Errorf("%s: it is kept for %s, not %s", says, left, want)
		}
		wantRevoked(t, s, []cache.Token{{Hash: session.Hash}})
	}
	kept("once", cache.RevokedToken(session.Hash), 2*day)
	kept("again", cache.RevokedToken(session.Hash), 2*day)
	create(t, s, session)
	wantSession(t, s, session.Hash, "")
	ends := cache.RevokedToken(session.Hash)
	ends.Until = now.Add(5 * day)
	kept("with an end", ends, 5*day+cache.MaxLeeway)
	kept("and without", cache.RevokedToken(session.Hash), 5*day+cache.MaxLeeway)
	kept("of what is no session", cache.RevokedToken(cache.HashToken("two")), cache.RevokedFor)
	outlive(t, s, session.Hash.String())
	if n, _ := sweep(t, s); n != 1 || s.Client().Exists(t.Context(), "mythic:session:{"+session.Hash.String()+"}").Val() != 0 {
		t.Errorf("%d were swept", n)
	}
}

// TestRevocationsAgreeWithTheirModel applies revocations in any order, some twice, and
// holds what Redis says of tokens against what each of them means. Those who remember
// tokens go by Hits, so it has to say the same.
func TestRevocationsAgreeWithTheirModel(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	begin := time.Now().Truncate(time.Second)
	rapid.Check(t, func(t *rapid.T) {
		if err := s.Client().FlushAll(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		when := rapid.Custom(func(t *rapid.T) time.Time {
			return begin.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "seconds")) * time.Second)
		})
		all := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) cache.Revocation {
			n := name.Draw(t, "name")
			r := rapid.SampledFrom([]cache.Revocation{cache.RevokedToken(cache.HashToken(n)), cache.RevokedJTI(n), cache.RevokedSub(n)}).Draw(t, "kind")
			r.At = when.Draw(t, "at")
			return r
		}), 0, 6).Draw(t, "revocations")
		again := rapid.SliceOfN(rapid.SampledFrom(append(all, cache.Revocation{})), 0, 4).Draw(t, "again")
		for _, r := range append(append([]cache.Revocation(nil), all...), again...) {
			if r == (cache.Revocation{}) {
				continue
			}
			if err := s.Revoke(context.Background(), []cache.Revocation{r}); err != nil {
				t.Fatal(err)
			}
		}
		for range 4 {
			token := cache.Token{Hash: cache.HashToken(name.Draw(t, "token")), Sub: name.Draw(t, "sub")}
			if rapid.Bool().Draw(t, "has a twin") {
				token.Twin = cache.HashToken(name.Draw(t, "twin"))
			}
			if rapid.Bool().Draw(t, "has a jti") {
				token.JTI = name.Draw(t, "jti")
			}
			if rapid.Bool().Draw(t, "says when") {
				token.Issued = when.Draw(t, "issued")
			}
			want := false
			for _, r := range all {
				want = want || r.Hits(token)
				if r.Hits(token) && !slices.Contains(append(token.Names(), token.Hash.String()), r.Name()) {
					t.Fatalf("%+v concerns %+v, which has no such name", r, token)
				}
			}
			if got, err := s.Revoked(context.Background(), token); err != nil || got != want {
				t.Fatalf("%+v is revoked: %t, %v; its revocations say %t", token, got, err, want)
			}
		}
	})
}

// A token lives until its end and the leeway of the processes that accept it.
func TestARevocationIsKeptAsLongAsItsTokenLives(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	now := time.Now()
	gone, soon := cache.RevokedJTI("gone"), cache.RevokedJTI("soon")
	gone.Until, soon.Until = now.Add(-cache.MaxLeeway-time.Second), now.Add(time.Hour)
	revoke(t, s, now.Add(-time.Hour), gone, soon)
	keys, err := s.Client().Keys(t.Context(), "mythic:session:*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys %q, %v", keys, err)
	}
	if left, lives := keptFor(t, s, soon.Name()), time.Hour+cache.MaxLeeway; left > lives || left < lives-time.Minute {
		t.Errorf("it is kept for %s", left)
	}
	over := cache.RevokedJTI("over") // and accepted all the same
	over.Until = now.Add(-time.Second)
	revoke(t, s, now, over)
	if revoked, err := s.Revoked(t.Context(), cache.Token{JTI: "over"}); err != nil || !revoked {
		t.Errorf("within the leeway it is revoked: %t, %v", revoked, err)
	}
	revoke(t, s, now, cache.RevokedJTI("soon"))
	soon.Until = now.Add(time.Minute)
	revoke(t, s, now, soon) // a shorter life takes nothing away
	if left := keptFor(t, s, soon.Name()); left < cache.RevokedFor-time.Hour {
		t.Errorf("it is kept for %s", left)
	}
}

// feed is a process that remembers tokens.
type feed struct {
	*cache.Revocations
	heard chan cache.Revocation
	anew  chan struct{}
}

// follow runs a feed until the test ends, and returns once it hears.
func follow(t *testing.T, s *cache.Store) *feed {
	t.Helper()
	f := &feed{heard: make(chan cache.Revocation, 100), anew: make(chan struct{}, 100)}
	f.Revocations = s.NewRevocations(func(r cache.Revocation) { f.heard <- r }, func() { f.anew <- struct{}{} })
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	<-f.anew
	eventually(t, "it hears", f.Hears)
	return f
}

func TestRevocationsAreHeard(t *testing.T) {
	r := testserver.NewRedis(t)
	s := newStore(t, r, cache.Options{})
	f := follow(t, s)
	now := time.Now()
	want := []cache.Revocation{cache.RevokedToken(cache.HashToken("x")), cache.RevokedJTI("x.y"), cache.RevokedSub("a.b:c")}
	revoke(t, s, now, want...)
	for _, w := range want {
		got := <-f.heard
		w.At = now.Truncate(time.Millisecond)
		got.At = got.At.Truncate(time.Millisecond)
		if !got.At.Equal(w.At) || !got.Hits(cache.Token{Hash: cache.HashToken("x"), JTI: "x.y", Sub: "a.b:c", Issued: now.Add(-time.Second)}) {
			t.Errorf("heard %+v, not %+v", got, w)
		}
	}
	if err := s.Client().Publish(t.Context(), "mythic:revoked", "nonsense").Err(); err != nil {
		t.Fatal(err)
	}
	<-f.anew // it may have meant anything
	if err := s.Client().ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	<-f.anew // something may have been missed
	revoke(t, s, now, want[0])
	<-f.heard
}

// A connection that falls silent is trusted no longer, and comes back.
func TestAFeedNoticesSilence(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t)
	f := follow(t, newStore(t, r, cache.Options{}))
	if last := f.LastHeard(); last.IsZero() || time.Since(last) > 3*time.Second {
		t.Errorf("it last heard at %s", last)
	}
	if err := r.Freeze(); err != nil {
		t.Fatal(err)
	}
	frozen := time.Now()
	eventually(t, "the silence is noticed", func() bool { return !f.Hears() })
	if took := time.Since(frozen); took > 6*time.Second {
		t.Errorf("it was noticed after %s", took)
	}
	if last := f.LastHeard(); last.IsZero() || last.After(frozen) {
		t.Errorf("frozen at %s, it was last heard at %s", frozen, last)
	}
	if err := r.Thaw(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it hears again", f.Hears)
}
