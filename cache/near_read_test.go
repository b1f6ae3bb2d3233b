package cache_test

import (
	"fmt"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// What is a Hit in Redis can be had soon, with its admission; nothing else can, and is
// as if it had not been asked for: who asks again in earnest is counted once.
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
		if got, ok := r.Soon(t.Context(), q); ok {
			t.Errorf("near %d: one too many: %+v", nearBytes, got)
		}
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
	// The first few wait for a tenth of a second each, the others not at all.
	if took := time.Since(begun); took > 1500*time.Millisecond {
		t.Errorf("twenty times took %s", took)
	}
}
