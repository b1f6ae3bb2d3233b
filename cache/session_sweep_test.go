package cache_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// byEachName revokes n tokens of each kind and returns them.
func byEachName(t *testing.T, s *cache.Store, n int) []cache.Token {
	t.Helper()
	var all []cache.Token
	var revocations []cache.Revocation
	for i := range n {
		text := fmt.Sprint("token ", i)
		all = append(all, cache.Token{Hash: cache.HashToken(text)}, cache.Token{JTI: text}, cache.Token{Sub: text})
		revocations = append(revocations, cache.RevokedToken(cache.HashToken(text)), cache.RevokedJTI(text), cache.RevokedSub(text))
	}
	revoke(t, s, time.Now(), revocations...)
	return all
}

func wantRevoked(t *testing.T, s *cache.Store, tokens []cache.Token) {
	t.Helper()
	gone := 0
	for _, token := range tokens {
		revoked, err := s.Revoked(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		if !revoked {
			gone++
		}
	}
	if gone > 0 {
		t.Errorf("%d of %d revoked tokens are good again", gone, len(tokens))
	}
}

// Redis throws away what has a TTL until nothing of the kind is left, and then refuses
// to take more. Neither costs a revocation.
func TestAFullRedisKeepsRevocations(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t, "--maxmemory-policy", "volatile-lfu")
	s := newStore(t, r, cache.Options{})
	revoked := byEachName(t, s, 30)
	var sessions []string // as seldom read, and with a TTL
	for i := range 10 {
		hash := cache.HashToken(fmt.Sprint(i))
		create(t, s, cache.Session{Hash: hash, Sub: "user_1", Created: time.Now()})
		sessions = append(sessions, "mythic:session:{"+hash.String()+"}")
	}
	if err := s.Client().ConfigSet(t.Context(), "maxmemory", "8mb").Err(); err != nil {
		t.Fatal(err)
	}
	fill := func(ttl time.Duration) error {
		_, err := s.Client().Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for i := range 10_000 {
				p.Set(t.Context(), fmt.Sprint("filling:", ttl, i), strings.Repeat("x", 1000), ttl)
			}
			return nil
		})
		return err
	}
	for round := 1; s.Client().Exists(t.Context(), sessions...).Val() > 0; round++ {
		if err := fill(time.Duration(round) * time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	wantRevoked(t, s, revoked)
	if err := s.Client().ConfigSet(t.Context(), "maxmemory", "1mb").Err(); err != nil {
		t.Fatal(err)
	}
	if err := fill(0); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Fatalf("Redis is not full: %v", err)
	}
	late := cache.RevokedJTI("late")
	revoke(t, s, time.Now(), late)
	wantRevoked(t, s, append(revoked, cache.Token{JTI: "late"}))
}

func sweep(t *testing.T, s *cache.Store) (swept int, left int64) {
	t.Helper()
	for {
		n, more, now, err := s.SweepRevocations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if swept += n; !more {
			return swept, now
		}
	}
}

// outlive lets the time of revocations pass.
func outlive(t *testing.T, s *cache.Store, names ...string) {
	t.Helper()
	_, err := s.Client().Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for _, name := range names {
			p.ZAddXX(t.Context(), "mythic:revoked:index", redis.Z{Score: float64(time.Now().Add(-time.Second).UnixMilli()), Member: name})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Only what is over is swept; what stands in the place of what was revoked stays.
func TestRevocationsAreSwept(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	const many = 1200
	var all []cache.Revocation
	var names []string
	for i := range many {
		all = append(all, cache.RevokedJTI(fmt.Sprint(i)))
		names = append(names, all[i].Name())
	}
	revoke(t, s, time.Now(), all...)
	kept := byEachName(t, s, 1)
	session := cache.Session{Hash: cache.HashToken("opaque"), Sub: "user_1", Created: time.Now()}
	revoke(t, s, time.Now(), cache.RevokedToken(session.Hash))
	if err := s.Client().Del(t.Context(), "mythic:session:{"+session.Hash.String()+"}").Err(); err != nil { // by hand
		t.Fatal(err)
	}
	create(t, s, session)
	if n, left := sweep(t, s); n != 0 || left != many+4 {
		t.Errorf("%d were swept before their time, %d are left", n, left)
	}
	outlive(t, s, append(names, session.Hash.String())...)
	if n, left := sweep(t, s); n != many+1 || left != 3 {
		t.Errorf("%d were swept, %d are left", n, left)
	}
	wantRevoked(t, s, kept)
	wantSession(t, s, session.Hash, "user_1")
	found, err := s.Client().Keys(t.Context(), "mythic:session:*").Result()
	if err != nil || len(found) != 4 {
		t.Errorf("left are %q, %v", found, err)
	}
	if n, err := cache.CountRevocations(t.Context(), s.Client(), "mythic:"); err != nil || n != 3 {
		t.Errorf("%d are counted, %v", n, err)
	}
}

// What is revoked once more while it is swept stays revoked.
func TestASweepTakesNoRevocationBack(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	var tokens []cache.Token
	var again []cache.Revocation
	var names []string
	for i := range 500 {
		tokens, again = append(tokens, cache.Token{JTI: fmt.Sprint(i)}), append(again, cache.RevokedJTI(fmt.Sprint(i)))
		names = append(names, again[i].Name())
	}
	revoke(t, s, time.Now(), again...)
	for range 10 {
		outlive(t, s, names...)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, more, _, err := s.SweepRevocations(context.Background()); err != nil || !more {
					if err != nil {
						t.Error(err)
					}
					return
				}
			}
		}()
		for begin := 0; begin < len(again); begin += 50 {
			revoke(t, s, time.Now(), again[begin:begin+50]...)
		}
		<-done
		if left, err := s.Client().Keys(t.Context(), "mythic:session:*").Result(); err != nil || len(left) != len(again) {
			t.Fatalf("%d of %d are left, %v", len(left), len(again), err)
		}
	}
	wantRevoked(t, s, tokens)
}

// Revocations of an earlier release have a TTL, and are in no index. They count, and
// keep theirs.
func TestRevocationsOfAnEarlierRelease(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	now := time.Now()
	names := []string{cache.HashToken("a").String(), cache.RevokedJTI("b").Name(), cache.RevokedSub("c").Name()}
	for _, name := range names {
		if err := s.Client().Set(context.Background(), "mythic:session:{"+name+"}", fmt.Sprintf("1r%d", now.UnixMilli()), 48*time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}
	old := []cache.Token{{Hash: cache.HashToken("a")}, {JTI: "b"}, {Sub: "c"}}
	wantRevoked(t, s, old)
	sweep(t, s)
	wantRevoked(t, s, old)
	again := cache.RevokedJTI("b")
	again.Until = now.Add(time.Minute)
	revoke(t, s, now, again)
	if left := keptFor(t, s, names[1]); left < 47*time.Hour {
		t.Errorf("revoked once more, and for a shorter time, it is kept for %s", left)
	}
	wantRevoked(t, s, old)
}

// While workers of an earlier release run, they revoke with a TTL what is in the index.
func TestASweepLeavesWhatHasATTL(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	one := cache.RevokedJTI("one")
	revoke(t, s, time.Now(), one)
	if err := s.Client().Expire(t.Context(), "mythic:session:{"+one.Name()+"}", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	outlive(t, s, one.Name())
	if n, left := sweep(t, s); n != 1 || left != 0 {
		t.Errorf("%d were swept from the index, %d are left", n, left)
	}
	wantRevoked(t, s, []cache.Token{{JTI: "one"}})
}
