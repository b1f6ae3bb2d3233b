package cache_test

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// cuts loses replies: Redis has done what it was asked, and nobody hears of it.
type cuts struct{ left, made atomic.Int64 }

type cutConn struct {
	net.Conn
	cuts *cuts
}

func (c cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.cuts.left.Load() > 0 && c.cuts.left.Add(-1) >= 0 {
		c.cuts.made.Add(1)
		_ = c.Close()
		return 0, io.EOF
	}
	return n, err
}

// newCutStore makes a store whose connections, but not its reader's link, can be cut.
func newCutStore(t *testing.T, r *testserver.Redis) (*cache.Store, *cuts) {
	t.Helper()
	c := &cuts{}
	var clients atomic.Int64
	s := newStoreBy(t, func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		if clients.Add(1) > 1 {
			return dial(r)(onConnect)
		}
		return redis.NewClient(&redis.Options{
			OnConnect: onConnect, ContextTimeoutEnabled: true, DialerRetries: 1, // and the retries that are usual
			Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(r.Port))
				return cutConn{conn, c}, err
			},
		}), nil
	}, cache.Options{})
	return s, c
}

// TestAReplyThatIsLostIsAskedForAgain cuts the connection each few times. What is read is
// read again; an admission whose reply was lost is the caller's loss, and nobody's gain.
func TestAReplyThatIsLostIsAskedForAgain(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	for _, nearBytes := range []int64{0, 1 << 20} { // the limiter with the read, and alone
		s, cuts := newCutStore(t, server)
		r := newReader(t, s, nearBytes)
		put(t, s, "a", at(20), "body")
		if nearBytes > 0 {
			settle(t, r, book("a"))
		}
		q := book("a")
		q.Limit = &cache.Limit{Caller: "me", Rule: strconv.FormatInt(nearBytes, 10), Count: 9, Per: 24 * time.Hour}
		admitted := 0
		for n := range 20 {
			if n%4 == 3 {
				cuts.left.Store(1)
			}
			got := readBy(t, r, q)
			if got.Admission.Allowed {
				admitted++
			}
			if (got.Status == cache.Hit) != got.Admission.Allowed || got.Near != (nearBytes > 0 && got.Admission.Allowed) {
				t.Errorf("near %d, %d: near %t, %s, %+v", nearBytes, n, got.Near, summary(got), got.Admission)
			}
		}
		if made := int(cuts.made.Load()); made != 5 || admitted > 9 || admitted < 9-made || r.Alone() != 0 {
			t.Errorf("near %d: %d were admitted of 9, %d of them without Redis, with %d cuts", nearBytes, admitted, r.Alone(), made)
		}
	}
}

// TestARevocationThatIsLookedForIsFoundBehindACut and one that is made is made once.
func TestARevocationThatIsLookedForIsFoundBehindACut(t *testing.T) {
	t.Parallel()
	s, cuts := newCutStore(t, testserver.NewRedis(t))
	for n := range 5 {
		revocation := cache.RevokedJTI(strconv.Itoa(n))
		revocation.At = time.Now()
		cuts.left.Store(1)
		if err := s.Revoke(t.Context(), []cache.Revocation{revocation}); err != nil {
			t.Error(err)
		}
		for jti, want := range map[string]bool{strconv.Itoa(n): true, "another": false} {
			cuts.left.Store(1)
			if out, err := s.Revoked(t.Context(), cache.Token{JTI: jti}); err != nil || out != want {
				t.Errorf("%s: %t, %v", jti, out, err)
			}
		}
	}
	if made := cuts.made.Load(); made != 15 {
		t.Errorf("%d cuts", made)
	}
}
