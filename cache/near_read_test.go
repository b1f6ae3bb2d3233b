package cache_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// What is a Hit in Redis can be had soon, with its admission, and so can a refusal;
// nothing else can, and is as if it had not been asked for: who asks again in earnest is
// counted once.
func TestSoonGivesHitsAndCountsNothingElse(t *testing.T) {
	t.Parallel()
	redisServer := testserver.NewRedis(t)
	s := newStore(t, redisServer, cache.Options{StaleFor: time.Minute})
	put(t, s, "hit", at(20), "body")
	put(t, s, "fenced", at(20), "body")
	invalidate(t, s, "fenced", at(30).Version())
	for _, nearBytes := range []int64{0, 1 << 20} {
		r := newReader(t, s, nearBytes)
		const count = 100
		q := book("hit")
		q.Limit = &cache.Limit{Caller: fmt.Sprint("caller ", nearBytes), Rule: "/books", Count: count, Per: time.Minute}
		got := soon(t, r, q)
		if got.Status != cache.Hit || string(got.Entry.Body) != "body" || !got.Admission.Allowed {
			t.Fatalf("near %d: %+v", nearBytes, got)
		}
		for range 10 {
			for _, key := range []string{"fenced", "absent"} {
				q.Key = key
				if got, ok := r.Soon(t.Context(), q); ok {
					t.Errorf("near %d, %s: %+v", nearBytes, key, got)
				}
			}
		}
		// A few may be lost where the machine stands still, not all twenty.
		if last := readBy(t, r, q); last.Admission.Remaining < count-10 {
			t.Errorf("near %d: %d of %d are left after two requests", nearBytes, last.Admission.Remaining, count)
		}
		q.Key, q.Limit.Caller, q.Limit.Count = "hit", q.Limit.Caller+" again", 1
		if _, ok := r.Soon(t.Context(), q); !ok {
			t.Errorf("near %d: the first is refused", nearBytes)
		}
		if got, ok := r.Soon(t.Context(), q); !ok || got.Why != cache.WhyLimited || got.Admission.Allowed || got.Entry.Body != nil {
			t.Errorf("near %d: one too many: %+v %t", nearBytes, got, ok)
		}
	}
}

// Who is over the limit costs Redis one look at that, and none at what is in memory.
func TestSoonRefusesAtNoGreaterCost(t *testing.T) {
	t.Parallel()
	redisServer := testserver.NewRedis(t)
	s := newStore(t, redisServer, cache.Options{})
	client := redisServer.Client(t)
	put(t, s, "hit", at(20), "body")
	for _, one := range []struct {
		nearBytes    int64
		looks, calls int // that Redis has to answer for each
	}{{0, 1, 1}, {1 << 20, 0, 1}} {
		r := newReader(t, s, one.nearBytes)
		q := book("hit")
		if one.nearBytes > 0 {
			settle(t, r, q)
		}
		q.Limit = &cache.Limit{Caller: fmt.Sprint("caller ", one.nearBytes), Rule: "/books", Count: 1, Per: 24 * time.Hour}
		readBy(t, r, q)
		looks, calls := runs(t, client, "mget"), runs(t, client, "evalsha")
		const times = 20
		for range times {
			if got := soon(t, r, q); got.Why != cache.WhyLimited {
				t.Fatalf("near %d: %+v", one.nearBytes, got)
			}
		}
		// Some more where the machine stood still for so long that it was asked again.
		looks, calls = runs(t, client, "mget")-looks, runs(t, client, "evalsha")-calls
		if looks < one.looks*times || looks > one.looks*times+5 || calls < times || calls > times+5 {
			t.Errorf("near %d: MGET ran %d times, the limiter %d times", one.nearBytes, looks, calls)
		}
	}
}

// runs returns how often Redis has run a command.
func runs(t *testing.T, client *redis.Client, command string) (n int) {
	t.Helper()
	said, err := client.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	if _, after, ok := strings.Cut(said, "cmdstat_"+command+":calls="); ok {
		if _, err := fmt.Sscanf(after, "%d", &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// A Redis that took long once is not asked for some seconds by who cannot wait: who asks
// again in earnest would be counted twice each time.
func TestSoonLeavesASlowRedisAlone(t *testing.T) {
	t.Parallel()
	redisServer := testserver.NewRedis(t)
	s := newStore(t, redisServer, cache.Options{})
	put(t, s, "hit", at(20), "body")
	for _, nearBytes := range []int64{0, 1 << 20} {
		r := newReader(t, s, nearBytes)
		q := book("hit")
		soon(t, r, q)
		if nearBytes > 0 {
			settle(t, r, q)
		}
		const count = 9 // too few for any to be taken ahead
		q.Limit = &cache.Limit{Caller: fmt.Sprint("caller ", nearBytes), Rule: "/books", Count: count, Per: 24 * time.Hour}
		if err := redisServer.Freeze(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = redisServer.Thaw() })
		begun := time.Now()
		if got, ok := r.Soon(t.Context(), q); ok {
			t.Errorf("near %d: a frozen Redis gave %+v", nearBytes, got)
		}
		if err := redisServer.Thaw(); err != nil {
			t.Fatal(err)
		}
		readBy(t, r, q) // behind the other, so Redis answers
		for range 20 {
			if got, ok := r.Soon(t.Context(), q); ok && time.Since(begun) < cache.SlowPause {
				t.Fatalf("near %d: Redis was asked again: %+v", nearBytes, got)
			}
		}
		got := soon(t, r, q) // after a while it is
		if took := time.Since(begun); took < cache.SlowPause {
			t.Errorf("near %d: after %s", nearBytes, took)
		}
		if n := got.Admission.Remaining; n != count-3 {
			t.Errorf("near %d: %d of %d are left: the silence counts, and two more", nearBytes, n, count)
		}
		soon(t, r, q)
	}
}

// soon reads as soon as the reader runs.
func soon(t *testing.T, r *cache.Reader, q cache.Query) (got cache.Result) {
	t.Helper()
	testserver.Eventually(t, "to be had soon", func() error {
		var ok bool
		if got, ok = r.Soon(t.Context(), q); !ok {
			return errWrong
		}
		return nil
	})
	return got
}

// Whoever cannot wait is not made to by a Redis that is silent.
func TestSoonDoesNotWaitForASilentRedis(t *testing.T) {
	t.Parallel()
	redisServer := testserver.NewRedis(t)
	s := newStore(t, redisServer, cache.Options{})
	put(t, s, "hit", at(20), "body")
	r := newReader(t, s, 0)
	soon(t, r, book("hit"))
	if err := redisServer.Freeze(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = redisServer.Thaw() })
	begun := time.Now()
	for range 20 {
		if got, ok := r.Soon(t.Context(), book("hit")); ok {
			t.Errorf("a frozen Redis gave %+v", got)
		}
	}
	// The first waits for a tenth of a second, the others not at all.
	if took := time.Since(begun); took > 1500*time.Millisecond {
		t.Errorf("twenty times took %s", took)
	}
}
