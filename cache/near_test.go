package cache_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

// settle reads until an entry comes from memory.
func settle(t *testing.T, r *cache.Reader, q cache.Query) cache.Result {
	t.Helper()
	var got cache.Result
	testserver.Eventually(t, "an entry in memory", func() error {
		if got = readBy(t, r, q); !got.Near || got.Status != cache.Hit {
			return fmt.Errorf("%t %s", got.Near, summary(got))
		}
		return nil
	})
	return got
}

// caughtUp waits until a reader has heard of all that has been written.
func caughtUp(t *testing.T, r *cache.Reader) {
	t.Helper()
	now := time.Now()
	testserver.Eventually(t, "a sign of life", func() error {
		if r.Heard().Before(now) {
			return errWrong
		}
		return nil
	})
}

func TestWhatIsReadAgainComesFromMemory(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	r := newReader(t, s, 1<<20)
	want := put(t, s, "a", at(20), "body")
	settle(t, r, book("a"))
	count := &trips{}
	s.Client().AddHook(count)
	for range 10 {
		got := readBy(t, r, book("a"))
		if !got.Near || string(got.Entry.Body) != "body" || got.Entry.ETag != want.ETag || !got.Entry.Saved.Equal(want.Saved) {
			t.Errorf("%s", summary(got))
		}
	}
	if n := count.n.Load(); n != 0 {
		t.Errorf("%d round trips", n)
	}
	if counts := s.Counts()["books"]; counts.Hits < 10 {
		t.Errorf("counts %+v", counts)
	}
	// One that has seen the transaction will do. One that has not will not, but does for others.
	q := book("a")
	q.MinXid = &cache.MinXid{Xid: 19}
	if got := readBy(t, r, q); !got.Near {
		t.Errorf("seen: %s", summary(got))
	}
	q.MinXid = &cache.MinXid{Xid: 20}
	held := 0
	s.Client().AddHook(&afterReply{do: func() { held, _ = r.Held() }})
	if got := readBy(t, r, q); got.Near || got.Why != cache.WhyMinXid || held != 1 {
		t.Errorf("not seen: %s, and %d are in memory meanwhile", summary(got), held)
	}
}

// TestWhatIsWrittenLeavesMemory writes in every way that there is.
func TestWhatIsWrittenLeavesMemory(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s := newStore(t, server, cache.Options{})
	r := newReader(t, s, 1<<20)
	client := server.Client(t)
	for name, write := range map[string]struct {
		do   func(key string) error
		then cache.Status
	}{
		"invalidated": {func(key string) error {
			_, err := s.Invalidate(t.Context(), []cache.Change{{View: books(), Key: key, Version: at(160).Version()}})
			return err
		}, cache.Miss},
		"fenced":  {func(string) error { return s.Fence(t.Context(), books(), at(160).Version()) }, cache.Miss},
		"deleted": {func(key string) error { return client.Del(t.Context(), "mythic:books:{"+key+"}").Err() }, cache.Miss},
		"expired": {func(key string) error {
			return client.PExpire(t.Context(), "mythic:books:{"+key+"}", time.Millisecond).Err()
		}, cache.Miss},
		"flushed": {func(string) error { return client.FlushAll(t.Context()).Err() }, cache.Miss},
		"put": {func(key string) error {
			l, err := s.Lease(t.Context(), books(), key, time.Minute)
			if err == nil {
				_, err = s.Put(t.Context(), l, fill(at(200), "newer"))
			}
			return err
		}, cache.Hit},
	} {
		if err := s.EnsureViews(t.Context(), []*view.View{books()}, at(1).Version()); err != nil {
			t.Fatal(err)
		}
		key := "key of " + name
		put(t, s, key, at(150), "body")
		settle(t, r, book(key))
		if err := write.do(key); err != nil {
			t.Fatal(err)
		}
		if name == "expired" {
			testserver.Eventually(t, "it has expired", func() error {
				if client.Exists(t.Context(), "mythic:books:{"+key+"}").Val() != 0 {
					return errWrong
				}
				return nil
			})
		}
		caughtUp(t, r)
		if got := readBy(t, r, book(key)); got.Status != write.then || got.Status == cache.Hit && string(got.Entry.Body) != "newer" {
			t.Errorf("%s: near %t, %s", name, got.Near, summary(got))
		}
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		caughtUp(t, r)
	}
}

// TestNothingOldIsNearUnderChurn has writers put ever higher numbers into few keys
// while many read. Whatever a link had heard of before a read began, that read, if it
// is a Hit, is no older.
func TestNothingOldIsNearUnderChurn(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s := newStore(t, server, cache.Options{})
	readers := []*cache.Reader{newReader(t, s, 1<<20), newReader(t, s, 1<<20)}
	const keys, rounds = 4, 100
	var floors [keys]applied
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var near, far atomic.Int64
	for i := range 4 {
		r := readers[i%2]
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				k := (n + i) % keys
				floor := floors[k].at(r.Heard())
				got, err := r.Read(t.Context(), book(strconv.Itoa(k)))
				if err != nil {
					t.Error(err)
					return
				}
				if got.Status != cache.Hit {
					continue
				}
				if got.Near {
					near.Add(1)
				} else {
					far.Add(1)
				}
				if value, _ := strconv.Atoi(string(got.Entry.Body)); value < floor {
					t.Errorf("key %d was %d by a read that had to see %d; near %t", k, value, floor, got.Near)
					return
				}
			}
		})
	}
	for n := range rounds {
		k := n % keys
		key, snapshot := strconv.Itoa(k), at(uint64(100+n))
		switch n % 3 {
		case 0: // as an event with a version, then a fill
			invalidate(t, s, key, snapshot.Version())
		case 1: // as an event without
			invalidate(t, s, key, cache.Change{}.Version)
		}
		if n%3 != 2 { // what was there is over
			floors[k].raise(n)
		}
		put(t, s, key, snapshot, strconv.Itoa(n))
		floors[k].raise(n)
		switch n % 50 {
		case 20: // the links are cut, and come again
			if err := server.Client(t).ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
				t.Fatal(err)
			}
		case 40:
			for _, r := range readers {
				testserver.Eventually(t, "the link", r.Ready)
			}
		}
	}
	for _, r := range readers {
		testserver.Eventually(t, "the link", r.Ready)
	}
	settle(t, readers[0], book("0"))
	close(stop)
	wg.Wait()
	t.Logf("%d near, %d far", near.Load(), far.Load())
	if near.Load() == 0 {
		t.Error("nothing came from memory")
	}
}

// applied is what has been applied to a key, and when that was known.
type applied struct {
	mu    sync.Mutex
	value []int
	known []time.Time
}

func (a *applied) raise(value int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.value, a.known = append(a.value, value), append(a.known, time.Now())
}

// at returns the highest value that was known to be applied at a moment.
func (a *applied) at(moment time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, value := range slices.Backward(a.value) {
		if !a.known[i].After(moment) {
			return value
		}
	}
	return 0
}

// TestHowFarMemoryIsBehind measures from an invalidation to the last Hit of what it
// removed.
func TestHowFarMemoryIsBehind(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	r := newReader(t, s, 1<<20)
	behind := make([]time.Duration, 0, 100)
	for n := range cap(behind) {
		key := strconv.Itoa(n)
		put(t, s, key, at(20), "body")
		settle(t, r, book(key))
		invalidate(t, s, key, at(30).Version())
		done := time.Now()
		last := done
		for readBy(t, r, book(key)).Status == cache.Hit {
			last = time.Now()
		}
		behind = append(behind, last.Sub(done))
	}
	slices.Sort(behind)
	t.Logf("p50 %s, p99 %s", behind[len(behind)/2], behind[len(behind)-1])
	if behind[len(behind)/2] > 50*time.Millisecond || behind[len(behind)-1] > 2*time.Second {
		t.Errorf("it was behind by %s at the median, %s at most", behind[len(behind)/2], behind[len(behind)-1])
	}
}

// TestALinkThatIsCutLeavesNothingFresh cuts it while Redis answers all others.
func TestALinkThatIsCutLeavesNothingFresh(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s := newStore(t, server, cache.Options{})
	r := newReader(t, s, 1<<20)
	put(t, s, "a", at(20), "body")
	settle(t, r, book("a"))
	if err := server.Client(t).ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	invalidate(t, s, "a", at(30).Version()) // perhaps heard of by nobody
	testserver.Eventually(t, "what was invalidated is no Hit", func() error {
		if readBy(t, r, book("a")).Status == cache.Hit {
			return errWrong
		}
		return nil
	})
	testserver.Eventually(t, "the link", r.Ready)
	put(t, s, "a", at(40), "newer")
	if got := settle(t, r, book("a")); string(got.Entry.Body) != "newer" {
		t.Error(summary(got))
	}
}

// TestMemoryAnswersWhileRedisIsAway freezes Redis, then kills it.
func TestMemoryAnswersWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t, "--appendfsync", "always")
	s := newStore(t, server, cache.Options{StaleFor: time.Minute})
	r := newReader(t, s, 1<<20)
	put(t, s, "warm", at(20), "body")
	put(t, s, "dropped", at(20), "body")
	put(t, s, "fresh only", at(20), "body")
	fresh := book("fresh only")
	fresh.View = &view.View{Name: "books", TTL: time.Hour, Negative: time.Hour, Fresh: true}
	settle(t, r, book("warm"))
	settle(t, r, book("dropped"))
	settle(t, r, fresh)
	invalidate(t, s, "dropped", at(30).Version())
	caughtUp(t, r)

	away := func(what string, stop, back func() error) {
		t.Helper()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		testserver.Eventually(t, what+": the copy in memory", func() error {
			got := readBy(t, r, book("warm")) // no error at any time
			if got.Status == cache.Miss || got.Status == cache.Hit && !got.Near {
				t.Fatalf("%s: %s", what, summary(got))
			}
			if got.Why != cache.WhyAway {
				return errWrong
			}
			return nil
		})
		begun := time.Now()
		for range 50 {
			if got := readBy(t, r, book("warm")); got.Status != cache.Stale || string(got.Entry.Body) != "body" {
				t.Errorf("%s: %s", what, summary(got))
			}
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: 50 reads took %s", what, took)
		}
		var wg sync.WaitGroup
		for _, q := range []cache.Query{book("dropped"), fresh, {View: books(), Key: "warm", MinXid: &cache.MinXid{Xid: 20}}} {
			wg.Go(func() {
				if got, err := r.Read(t.Context(), q); err == nil {
					t.Errorf("%s: %s has %s", what, q.Key, summary(got))
				}
			})
		}
		wg.Wait()
		if err := back(); err != nil {
			t.Fatal(err)
		}
		testserver.Eventually(t, what+": Redis is back", func() error {
			got, err := r.Read(t.Context(), book("warm"))
			if err != nil {
				return err
			}
			if got.Why == cache.WhyAway {
				return errWrong
			}
			return nil
		})
	}
	away("frozen", server.Freeze, server.Thaw)
	settle(t, r, book("warm"))
	settle(t, r, fresh)
	away("killed", func() error { server.Kill(); return nil }, func() error { return server.Start(t.Context()) })
	if got := readBy(t, r, book("warm")); got.Why != cache.WhyUnconfirmed {
		t.Errorf("after a restart: %s", summary(got))
	}
	if err := s.Confirm(t.Context(), []*view.View{books()}, s.RunID()); err != nil {
		t.Fatal(err)
	}
	settle(t, r, book("warm"))
}

// TestMemoryDoesNotAnswerForLong lets StaleFor pass.
func TestMemoryDoesNotAnswerForLong(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s := newStore(t, server, cache.Options{StaleFor: 1500 * time.Millisecond})
	r := newReader(t, s, 1<<20)
	put(t, s, "a", at(20), "body")
	if _, err := s.Put(t.Context(), lease(t, s, books(), "none"), cache.Fill{Negative: true, Version: at(20).Version(), Snapshot: at(20), TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	settle(t, r, book("a"))
	settle(t, r, book("none"))
	server.Kill()
	testserver.Eventually(t, "the copy in memory", func() error {
		if got := readBy(t, r, book("a")); got.Why != cache.WhyAway {
			return errWrong
		}
		return nil
	})
	if got, err := r.Read(t.Context(), book("none")); err == nil {
		t.Errorf("what did not exist, and may by now: %s", summary(got))
	}
	testserver.Eventually(t, "its end", func() error {
		if _, err := r.Read(t.Context(), book("a")); err == nil {
			return errWrong
		}
		return nil
	})
}

// TestMemoryIsBounded reads more than there is room for, and keeps what is read often.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	const most = 1 << 18
	r := newReader(t, s, most)
	body := strings.Repeat("x", 1000)
	put(t, s, "hot", at(20), body)
	settle(t, r, book("hot"))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 200 {
				key := fmt.Sprintf("%d of %d", n, i)
				l, err := s.Lease(t.Context(), books(), key, time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Put(t.Context(), l, fill(at(20), body)); err != nil {
					t.Error(err)
					return
				}
				for _, key := range []string{key, "hot", "hot"} {
					if _, err := r.Read(context.Background(), book(key)); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	entries, bytes := r.Held()
	if bytes > most || bytes < most/2 || entries > most/1000 {
		t.Errorf("%d entries of %d bytes", entries, bytes)
	}
	if got := readBy(t, r, book("hot")); !got.Near {
		t.Error("what was read most is gone")
	}
	put(t, s, "large", at(20), strings.Repeat("x", most))
	for range 3 {
		if got := readBy(t, r, book("large")); got.Near || got.Status != cache.Hit {
			t.Error("larger than all of it, and yet in memory")
		}
	}
}

// afterReply does something between Redis's reply to a batch and what is made of it.
type afterReply struct {
	trips
	once sync.Once
	do   func()
}

func (h *afterReply) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		h.once.Do(h.do)
		return err
	}
}

// TestWhatBecomesOldWhileItIsReadIsNotKept has Redis's word of a write come before the
// answer that the write has made old is kept.
func TestWhatBecomesOldWhileItIsReadIsNotKept(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	for name, write := range map[string]func(s *cache.Store) error{
		"the key": func(s *cache.Store) error {
			_, err := s.Invalidate(t.Context(), []cache.Change{{View: books(), Key: "a", Version: at(900).Version()}})
			return err
		},
		"its view":   func(s *cache.Store) error { return s.Fence(t.Context(), books(), at(900).Version()) },
		"everything": func(s *cache.Store) error { return s.Client().FlushAll(t.Context()).Err() },
	} {
		s, other := newStore(t, server, cache.Options{}), newStore(t, server, cache.Options{})
		r := newReader(t, s, 1<<20)
		put(t, other, "a", at(500), "body")
		s.Client().AddHook(&afterReply{do: func() {
			if err := write(other); err != nil {
				t.Error(err)
			}
			caughtUp(t, r)
		}})
		if got := readBy(t, r, book("a")); got.Status != cache.Hit {
			t.Errorf("%s: what was there when it was read: %s", name, summary(got))
		}
		if got := readBy(t, r, book("a")); got.Near || got.Status != cache.Miss {
			t.Errorf("%s is written, and near %t, %s", name, got.Near, summary(got))
		}
		if err := server.Client(t).FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}
