package cache_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// meddler stands between a store and the batches of reads that it sends.
type meddler struct {
	meddle func(ctx context.Context, keys string) error // nil lets them pass
}

func (m *meddler) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (m *meddler) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (m *meddler) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if cmd.Name() != "mget" {
				continue
			}
			if err := m.meddle(ctx, fmt.Sprint(cmd.Args()...)); err != nil {
				return err
			}
		}
		return next(ctx, cmds)
	}
}

var errLost = errors.New("the connection is lost")

// lose makes the reads of a store fail for as long as there are some left to fail.
func lose(s *cache.Store) (left *atomic.Int64) {
	left = &atomic.Int64{}
	s.Client().AddHook(&meddler{func(context.Context, string) error {
		if left.Load() > 0 && left.Add(-1) >= 0 {
			return errLost
		}
		return nil
	}})
	return left
}

// all is more than are ever sent.
const all = 1 << 40

// relink has a reader lose its link and get another.
func relink(t *testing.T, server *testserver.Redis, g *gate, r *cache.Reader, meanwhile func()) {
	t.Helper()
	g.closed.Store(true)
	hangUp(t, server, "pubsub")
	testserver.Eventually(t, "no link", func() error {
		if r.Ready() == nil {
			return errWrong
		}
		return nil
	})
	meanwhile()
	g.closed.Store(false)
	testserver.Eventually(t, "another link", r.Ready)
}

// TestTheReturnOfRedisTakesNoCopyAway has Redis tell of what is written again before
// who reads is answered again. What was kept is given until he is, but for what is written.
func TestTheReturnOfRedisTakesNoCopyAway(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s, gate := newGatedStore(t, server, cache.Options{StaleFor: time.Minute})
	workers := newStore(t, server, cache.Options{})
	failing := lose(s)
	r := newReader(t, s, 1<<20)
	for _, key := range []string{"a", "written", "flushed"} {
		put(t, s, key, at(20), "body")
		settle(t, r, book(key))
	}
	relink(t, server, gate, r, func() { failing.Store(all) })
	if got := readBy(t, r, book("a")); got.Status != cache.Stale || got.Why != cache.WhyAway || !got.Near || string(got.Entry.Body) != "body" {
		t.Errorf("near %t, %s", got.Near, summary(got))
	}
	invalidate(t, workers, "written", at(30).Version())
	caughtUp(t, r)
	nothing := func(key string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond) // copies are given sooner
		defer cancel()
		if got, err := r.Read(ctx, book(key)); err == nil {
			t.Errorf("%s is old, and yet near %t, %s", key, got.Near, summary(got))
		}
	}
	nothing("written")
	failing.Store(0)
	settle(t, r, book("a"))
	failing.Store(all)
	if err := server.Client(t).FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, r)
	nothing("a")
	nothing("flushed")
}

// TestACopyEndsWithItsOwnTime has Redis come back and be heard of, while who reads is
// not answered: what was kept before is none the younger for it.
func TestACopyEndsWithItsOwnTime(t *testing.T) {
	t.Parallel()
	const staleFor = time.Second
	server := testserver.NewRedis(t)
	s, gate := newGatedStore(t, server, cache.Options{StaleFor: staleFor})
	failing := lose(s)
	r := newReader(t, s, 1<<20)
	put(t, s, "a", at(20), "body")
	settle(t, r, book("a"))
	var heard time.Time
	relink(t, server, gate, r, func() { heard = r.Heard(); failing.Store(all) })
	testserver.Eventually(t, "the end of the copy", func() error {
		begun := time.Now()
		_, err := r.Read(t.Context(), book("a"))
		ended := time.Now()
		switch {
		case err == nil && begun.Sub(heard) > staleFor:
			return fmt.Errorf("given %s after the last sign of life", begun.Sub(heard))
		case err != nil && ended.Sub(heard) < staleFor:
			t.Fatalf("not given %s after the last sign of life: %v", ended.Sub(heard), err)
		case err == nil:
			return errWrong
		}
		return nil
	})
	if r.Ready() != nil {
		t.Error("the link is gone, too")
	}
}

// TestWhoHasNothingElseAsksAgain has reads fail for a while although Redis is there.
func TestWhoHasNothingElseAsksAgain(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	failing := lose(s)
	r := newReader(t, s, 1<<20)
	put(t, s, "a", at(20), "body")
	failing.Store(5)
	if got := readBy(t, r, book("a")); got.Status != cache.Hit {
		t.Error(summary(got))
	}
	failing.Store(all)
	begun := time.Now()
	if got, err := r.Read(t.Context(), book("b")); !errors.Is(err, errLost) {
		t.Errorf("%s, %v", summary(got), err)
	}
	if took := time.Since(begun); took < time.Second || took > 4*time.Second {
		t.Errorf("it was given up after %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	begun = time.Now()
	if got, err := r.Read(ctx, book("b")); !errors.Is(err, context.Canceled) || time.Since(begun) > time.Second {
		t.Errorf("hung up: %s, %v after %s", summary(got), err, time.Since(begun))
	}
}

// TestOneBadConnectionIsNoSilence has one batch hang while Redis answers others.
func TestOneBadConnectionIsNoSilence(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s, gate := newGatedStore(t, server, cache.Options{StaleFor: time.Minute})
	held, release := make(chan struct{}, 2), make(chan struct{})
	s.Client().AddHook(&meddler{func(ctx context.Context, keys string) error {
		if strings.Contains(keys, "{held}") {
			held <- struct{}{}
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return ctx.Err()
	}})
	r := newReader(t, s, 1<<20)
	put(t, s, "a", at(20), "body")
	settle(t, r, book("a"))
	gate.closed.Store(true)
	hangUp(t, server, "pubsub")
	testserver.Eventually(t, "no link", func() error {
		if r.Ready() == nil {
			return errWrong
		}
		return nil
	})
	ended := make(chan error, 1)
	go func() {
		_, err := r.Read(t.Context(), book("held"))
		ended <- err
	}()
	<-held
	silent := 0
	for begun := time.Now(); time.Since(begun) < 500*time.Millisecond; {
		if got := readBy(t, r, book("a")); got.Status != cache.Hit {
			silent++
		}
	}
	// Some where the machine stood still for a tenth of a second.
	if silent > 5 {
		t.Errorf("%d copies were given while Redis answered", silent)
	}
	select {
	case err := <-ended:
		t.Errorf("the batch that hangs has ended too soon: %v", err)
	default:
	}
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestTheLimitOfOneAloneTellsNothing has a caller come too often while Redis does not
// answer, for what is kept and for what is not.
func TestTheLimitOfOneAloneTellsNothing(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s := newStore(t, server, cache.Options{StaleFor: time.Minute})
	r := newReader(t, s, 1<<20)
	put(t, s, "kept", at(20), "body")
	settle(t, r, book("kept"))
	server.Kill()
	testserver.Eventually(t, "no link", func() error {
		if r.Ready() == nil {
			return errWrong
		}
		return nil
	})
	begun := time.Now()
	for _, key := range []string{"kept", "absent"} {
		q := book(key)
		q.Limit = &cache.Limit{Caller: "who asks for " + key, Rule: "r", Count: 2, Per: time.Hour}
		for range q.Limit.Count {
			if got, err := r.Read(t.Context(), q); (err == nil) != (key == "kept") {
				t.Errorf("%s: %s, %v", key, summary(got), err)
			}
		}
		got, err := r.Read(t.Context(), q)
		if err != nil || got.Why != cache.WhyLimited || got.Status != cache.Miss || got.Entry.Body != nil || got.Near {
			t.Errorf("%s, once too often: %s, %v", key, summary(got), err)
		}
		if a := got.Admission; a.Allowed || !a.Alone || a.RetryAfter <= 0 {
			t.Errorf("%s, once too often: %+v", key, a)
		}
	}
	// Nobody is answered, so nobody asks again.
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("six answers without Redis took %s", took)
	}
}

// TestACopyWithAnOwnerIsNoOthers has Redis fail, and then take longer than who holds a copy
// waits. Whoever may not have the copy waits as if there were none: as long for the error,
// and for what Redis says.
func TestACopyWithAnOwnerIsNoOthers(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s, gate := newGatedStore(t, server, cache.Options{StaleFor: time.Minute})
	var slow, gone atomic.Bool
	s.Client().AddHook(&meddler{func(context.Context, string) error {
		switch {
		case gone.Load():
			return errLost
		case slow.Load():
			<-time.After(500 * time.Millisecond) // that it is slow is what is tried
		}
		return nil
	}})
	r := newReader(t, s, 1<<20)
	put(t, s, "nobody's", at(20), "body")
	for key, owner := range map[string]string{"mine": "me", "of who is gone": ""} {
		f := cache.Fill{Owned: true, Owner: owner, Version: at(20).Version(), Snapshot: at(20), Body: []byte("body")}
		if _, err := s.Put(t.Context(), lease(t, s, books(), key), f); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"mine", "of who is gone", "nobody's"} {
		settle(t, r, book(key))
	}
	relink(t, server, gate, r, func() { gone.Store(true) })
	var wg sync.WaitGroup
	for _, ask := range []struct {
		key, asker string
		spare      bool
	}{
		{"mine", "me", true}, {"nobody's", "", true}, {"nobody's", "you", true},
		{"mine", "you", false}, {"mine", "", false}, {"of who is gone", "", false}, {"of who is gone", "you", false},
	} {
		wg.Go(func() {
			q := book(ask.key)
			q.Asker = ask.asker
			begun := time.Now()
			got, err := r.Read(t.Context(), q)
			switch took := time.Since(begun); {
			case !ask.spare && (err == nil || took < time.Second):
				t.Errorf("%s, asked for by %q: %s, %v after %s", ask.key, ask.asker, summary(got), err, took)
			case ask.spare && (err != nil || got.Why != cache.WhyAway || string(got.Entry.Body) != "body"):
				t.Errorf("%s, asked for by %q: near %t, %s, %v", ask.key, ask.asker, got.Near, summary(got), err)
			}
		})
	}
	wg.Wait()
	slow.Store(true)
	gone.Store(false)
	q := book("mine")
	q.Asker = "you"
	if got := readBy(t, r, q); got.Near || got.Status != cache.Hit {
		t.Errorf("of a slow Redis: near %t, %s", got.Near, summary(got))
	}
}

// crowd opens connections to a frozen server until it takes no more.
func crowd(t *testing.T, server *testserver.Redis) {
	t.Helper()
	for range 100 {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(server.Port), 300*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("a frozen server has taken a hundred connections")
}

// dialAsTheProgram dials with the times that the program has.
func dialAsTheProgram(r *testserver.Redis) cache.Dial {
	return func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		o, err := redis.ParseURL(r.URL())
		if err != nil {
			return nil, err
		}
		o.OnConnect, o.ContextTimeoutEnabled, o.DisableIdentity = onConnect, true, true
		o.DialTimeout, o.PoolTimeout, o.DialerRetries = 2*time.Second, 2*time.Second, 1
		return redis.NewClient(o), nil
	}
}

// TestAFrozenRedisCostsNoAnswer has many read while Redis stands still for so long that
// it takes no more connections, comes back for a moment and for good, and has some of
// what they read changed.
func TestAFrozenRedisCostsNoAnswer(t *testing.T) {
	t.Parallel()
	const keys, readers, changed = 400, 12, 40
	server := testserver.NewRedis(t, "--tcp-backlog", "2")
	s := newStoreBy(t, dialAsTheProgram(server), cache.Options{StaleFor: time.Minute})
	r := newReader(t, s, 1<<20)
	for n := range keys {
		put(t, s, strconv.Itoa(n), at(20), "old")
		settle(t, r, book(strconv.Itoa(n)))
	}
	var wrote [changed]atomic.Pointer[time.Time]
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for first := range readers {
		group.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for n := first; ctx.Err() == nil; n++ {
				k := n % keys
				heard := r.Heard()
				got, err := r.Read(t.Context(), book(strconv.Itoa(k)))
				if err != nil {
					t.Errorf("key %d: %v", k, err)
				}
				if k < changed && err == nil && string(got.Entry.Body) == "old" {
					if at := wrote[k].Load(); at != nil && heard.After(*at) {
						t.Errorf("key %d: %s after it was known to be old", k, summary(got))
					}
				}
				<-tick.C
			}
		})
	}
	standStill := func() {
		t.Helper()
		if err := server.Freeze(); err != nil {
			t.Fatal(err)
		}
		crowd(t, server)
		sent := r.Batches()
		testserver.Eventually(t, "both ways to Redis have been tried in vain", func() error {
			if r.Batches() < sent+2 {
				return errWrong
			}
			return nil
		})
	}
	goOn := func() {
		t.Helper()
		if err := server.Thaw(); err != nil {
			t.Fatal(err)
		}
		testserver.Eventually(t, "the link", r.Ready)
	}
	standStill()
	goOn()
	standStill()
	thawed := time.Now()
	goOn()
	workers := newStore(t, server, cache.Options{})
	for n := range changed {
		put(t, workers, strconv.Itoa(n), at(30), "new")
		now := time.Now()
		wrote[n].Store(&now)
	}
	for n := range keys {
		if got := settle(t, r, book(strconv.Itoa(n))); n < changed && string(got.Entry.Body) != "new" {
			t.Errorf("key %d: %s", n, summary(got))
		}
	}
	t.Logf("all is fresh %s after the thaw", time.Since(thawed))
	stop()
	group.Wait()
}
