package cache_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// gate stands in the way of a near cache's link, and of nothing else.
type gate struct {
	held   sync.RWMutex // what has come over the link is not heard while it is locked
	closed atomic.Bool  // no link is made
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.gate.held.RLock()
	defer c.gate.held.RUnlock()
	return n, err
}

// newGatedStore makes a store whose reader has its link through a gate.
func newGatedStore(t *testing.T, r *testserver.Redis, o cache.Options) (*cache.Store, *gate) {
	t.Helper()
	g := &gate{}
	var clients atomic.Int64 // the store's own comes first, the link's next
	s := newStoreBy(t, func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		if clients.Add(1) != 2 {
			return dial(r)(onConnect)
		}
		return redis.NewClient(&redis.Options{
			OnConnect: onConnect, ContextTimeoutEnabled: true, DialerRetries: 1,
			Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
				if g.closed.Load() {
					return nil, errors.New("the gate is closed")
				}
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(r.Port))
				return gatedConn{conn, g}, err
			},
		}), nil
	}, o)
	return s, g
}

// TestWhatIsAnnouncedLeavesMemoryAtOnce has an announcement overtake Redis's own word
// of what it announces. Whoever is answered with that may ask again.
func TestWhatIsAnnouncedLeavesMemoryAtOnce(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s, gate := newGatedStore(t, server, cache.Options{})
	r := newReader(t, s, 1<<20)
	waiters := listen(t, s)
	workers := newStore(t, server, cache.Options{})
	for n := range uint64(10) {
		put(t, workers, "a", at(20+2*n), "old")
		settle(t, r, book("a"))
		wait := waiters.Wait("books", "a")
		gate.held.Lock()
		put(t, workers, "a", at(21+2*n), "new")
		<-wait.C()
		got := readBy(t, r, book("a"))
		late := time.Since(r.Heard()) > 900*time.Millisecond
		gate.held.Unlock()
		wait.Cancel()
		if string(got.Entry.Body) != "new" || got.Status != cache.Hit {
			t.Fatalf("after the announcement: near %t, %s", got.Near, summary(got))
		}
		if !late { // else nothing in memory was fresh any more
			return
		}
		caughtUp(t, r)
	}
	t.Fatal("the machine is too slow to tell")
}

// TestNobodyIsGivenTheOldAfterTheNew has entries stay in memory without a link, or with
// another than they were read under. Once a reader has seen in Redis that one is old,
// nobody is given it when Redis goes away.
func TestNobodyIsGivenTheOldAfterTheNew(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(*cache.Store, string){
		"a newer value": func(s *cache.Store, key string) { put(t, s, key, at(30), "new") },
		"a fence":       func(s *cache.Store, key string) { invalidate(t, s, key, at(30).Version()) },
		"nothing": func(s *cache.Store, key string) {
			if err := s.Client().Del(t.Context(), "mythic:books:{"+key+"}").Err(); err != nil {
				t.Error(err)
			}
		},
		"the view's fence": func(s *cache.Store, _ string) {
			if err := s.Fence(t.Context(), books(), at(30).Version()); err != nil {
				t.Error(err)
			}
		},
		"no view": func(s *cache.Store, _ string) {
			if err := s.Client().Del(t.Context(), "mythic:view:books").Err(); err != nil {
				t.Error(err)
			}
		},
	} {
		for _, again := range []bool{false, true} {
			oldAfterNew(t, name, write, again)
		}
	}
}

func oldAfterNew(t *testing.T, name string, write func(*cache.Store, string), again bool) {
	t.Helper()
	server := testserver.NewRedis(t)
	s, gate := newGatedStore(t, server, cache.Options{StaleFor: time.Minute})
	r := newReader(t, s, 1<<20)
	put(t, s, "a", at(20), "old")
	put(t, s, "seen", at(20), "old")
	settle(t, r, book("a"))
	settle(t, r, book("seen"))
	gate.closed.Store(true)
	hangUp(t, server, "pubsub")
	testserver.Eventually(t, "no link", func() error {
		if r.Ready() == nil {
			return errWrong
		}
		return nil
	})
	readBy(t, r, book("seen")) // what is found without a link is not forgotten for the next time
	write(s, "seen")
	if again {
		gate.closed.Store(false)
		testserver.Eventually(t, "another link", r.Ready)
	}
	readBy(t, r, book("seen"))
	server.Kill()
	if got, err := r.Read(t.Context(), book("seen")); err == nil && (!again || string(got.Entry.Body) == "old") {
		t.Errorf("%s, again %t, and yet near %t, %s", name, again, got.Near, summary(got))
	}
	wantOld := name != "the view's fence" && name != "no view"
	if got, err := r.Read(t.Context(), book("a")); (err == nil) != wantOld || wantOld && got.Why != cache.WhyAway {
		t.Errorf("%s, again %t: of another key %s, %v", name, again, summary(got), err)
	}
}
