package cache_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

// newReader starts a reader that ends with the test.
func newReader(t *testing.T, s *cache.Store, nearBytes int64) *cache.Reader {
	t.Helper()
	r, err := s.NewReader(cache.ReaderOptions{Views: []*view.View{books(), answers()}, NearBytes: nearBytes})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	testserver.Eventually(t, "the link", r.Ready)
	return r
}

// readBy reads a key of books.
func readBy(t *testing.T, r *cache.Reader, q cache.Query) cache.Result {
	t.Helper()
	result, err := r.Read(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func book(key string) cache.Query { return cache.Query{View: books(), Key: key} }

// TestAReaderFindsWhatTheStoreFinds reads every kind of thing by both.
func TestAReaderFindsWhatTheStoreFinds(t *testing.T) {
	t.Parallel()
	redisServer := testserver.NewRedis(t)
	s := newStore(t, redisServer, cache.Options{StaleFor: time.Minute})
	put(t, s, "hit", at(20), "body")
	put(t, s, "fenced", at(20), "body")
	invalidate(t, s, "fenced", at(30).Version())
	lease(t, s, books(), "leased")
	for key, f := range map[string]cache.Fill{
		"negative": {Negative: true, Version: at(20).Version(), Snapshot: at(20)},
		"owned":    {Owned: true, Owner: "me", Version: at(20).Version(), Snapshot: at(20), Body: []byte("mine")},
		"old":      {TTL: time.Millisecond, Version: at(20).Version(), Snapshot: at(20), Body: []byte("old")},
		"empty":    {Version: at(20).Version(), Snapshot: at(20)},
	} {
		if _, err := s.Put(t.Context(), lease(t, s, books(), key), f); err != nil {
			t.Fatal(err)
		}
	}
	c := redisServer.Client(t)
	if err := errors.Join(
		c.HSet(t.Context(), "mythic:books:{hash}", "a", "b").Err(),
		c.Set(t.Context(), "mythic:books:{text}", "nothing of ours\r\n$3\r\n", 0).Err(),
	); err != nil {
		t.Fatal(err)
	}
	for _, nearBytes := range []int64{0, 1 << 20} {
		r := newReader(t, s, nearBytes)
		for _, key := range []string{"hit", "fenced", "leased", "negative", "owned", "old", "empty", "hash", "text", "absent"} {
			for _, after := range []*cache.MinXid{nil, {Xid: 15}, {Xid: 25}, {Epoch: 2, Xid: 15}} {
				q := cache.Query{View: books(), Key: key, MinXid: after}
				testserver.Eventually(t, "old is old", func() error {
					if key == "old" && read(t, s, book(key)).Status != cache.Stale {
						return errWrong
					}
					return nil
				})
				want := read(t, s, q)
				for range 2 {
					got := readBy(t, r, q)
					if summary(got) != summary(want) {
						t.Errorf("near %d, %s, %v:\n got %s\nwant %s", nearBytes, key, after, summary(got), summary(want))
					}
				}
			}
		}
	}
}

func summary(r cache.Result) string {
	return fmt.Sprintf("%s %s %s %q %q %t %t %s %s %s", r.Status, r.Why, r.Entry.Key, r.Entry.Body, r.Entry.Owner, r.Entry.Owned,
		r.Entry.Negative, r.Entry.ETag, r.Entry.Version, r.Entry.FreshUntil)
}

// trips counts what goes to Redis through a store's client.
type trips struct{ n atomic.Int64 }

func (c *trips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

func (c *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmds)
	}
}

func TestReadsTravelTogether(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s := newStore(t, server, cache.Options{})
	r := newReader(t, s, 0)
	put(t, s, "a", at(20), "body of a")
	put(t, s, "b", at(20), "body of b")
	count := &trips{}
	s.Client().AddHook(count)
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	const readers = 200
	var wg sync.WaitGroup
	var begun atomic.Int32
	for i := range readers {
		wg.Go(func() {
			key := []string{"a", "b", "absent"}[i%3]
			begun.Add(1)
			got, err := r.Read(t.Context(), book(key))
			switch {
			case err != nil:
				t.Error(err)
			case key == "absent" && got.Why == cache.WhyAbsent:
			case got.Status != cache.Hit || string(got.Entry.Body) != "body of "+key:
				t.Errorf("%s: %s", key, summary(got))
			}
		})
	}
	testserver.Eventually(t, "all wait, but those of a batch or two", func() error {
		if count.n.Load() == 0 || begun.Load() < readers {
			return errWrong
		}
		return nil
	})
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if n := count.n.Load(); n > readers/4 {
		t.Errorf("%d readers took %d round trips", readers, n)
	}
}

func TestALoneReadTakesOneRoundTrip(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	r := newReader(t, s, 0)
	put(t, s, "a", at(20), "body")
	count := &trips{}
	s.Client().AddHook(count)
	q := book("a")
	q.Limit = &cache.Limit{Caller: "me", Rule: "r", Count: 5, Per: time.Minute}
	if got := readBy(t, r, q); got.Status != cache.Hit || !got.Admission.Allowed || got.Admission.Remaining != 4 || count.n.Load() != 1 {
		t.Errorf("%s %+v in %d round trips", summary(got), got.Admission, count.n.Load())
	}
}

func TestAReadIsBoundedAndCanBeGivenUp(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s := newStore(t, server, cache.Options{})
	r := newReader(t, s, 0)
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := r.Read(t.Context(), book("a")); err == nil {
				t.Error("a frozen Redis has answered")
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Read(ctx, book("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("giving up took %s", took)
	}
	wg.Wait()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("all were done after %s", took)
	}
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "it reads again", func() error {
		_, err := r.Read(t.Context(), book("a"))
		return err
	})
}

func TestAReaderOutlivesRedis(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s := newStore(t, server, cache.Options{})
	r := newReader(t, s, 0)
	put(t, s, "a", at(20), "body")
	limited := book("a")
	limited.Limit = &cache.Limit{Caller: "me", Rule: "r", Count: 1000, Per: time.Minute}
	if got := readBy(t, r, limited); got.Status != cache.Hit {
		t.Fatal(summary(got))
	}
	restart(t, server, s)
	// The pool's other connections are dead, and the new server has no scripts on them.
	for range 5 {
		if got := readBy(t, r, limited); got.Status == cache.Hit {
			t.Errorf("unconfirmed, and yet %s", summary(got))
		}
	}
	if err := s.Client().ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if got := readBy(t, r, limited); !got.Admission.Allowed {
			t.Errorf("%+v", got.Admission)
		}
	}
}

// TestAReaderReadsBeforeAndAfterItRuns, as its store does.
func TestAReaderReadsBeforeAndAfterItRuns(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	put(t, s, "a", at(20), "body")
	r, err := s.NewReader(cache.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if got := readBy(t, r, book("a")); got.Status != cache.Hit {
			t.Error(summary(got))
		}
	}
	check()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					check()
				}
			}
		})
	}
	for range 20 {
		check()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	check()
	close(stop)
	wg.Wait()
}
