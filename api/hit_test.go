package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
)

// discard is a ResponseWriter that keeps nothing, so that what is measured is
// ours.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// maxAllocations of a hit with a token, a limit and all headers, go-redis's part
// included.
const maxAllocations = 80

func TestAHitIsCheap(t *testing.T) {
	w := begin(t, func(o *Options) { o.Limits = "default=1000000/1m" })
	w.put("user_books", "user_1", fill(t, books("user_1")))
	r := httptest.NewRequest(http.MethodGet, "/books/my", http.NoBody)
	r.Header.Set("Authorization", token(t, "user_1"))
	d := &discard{header: http.Header{}}
	hit := func() {
		clear(d.header)
		w.server.Handler().ServeHTTP(d, r)
		if d.status != http.StatusOK {
			t.Fatal(d.status)
		}
	}
	hit() // the token is verified once
	if allocations := testing.AllocsPerRun(100, hit); allocations > maxAllocations && !raceDetector {
		t.Errorf("a hit allocates %.0f times; at most %d are allowed", allocations, maxAllocations)
	}
	trips := &tripCounter{}
	w.store.Client().AddHook(trips)
	hit()
	if n := trips.n.Load(); n != 1 {
		t.Errorf("a hit takes %d round trips to Redis", n)
	}
}

// tripCounter counts what goes to Redis: a command, or a pipeline of them.
type tripCounter struct{ n atomic.Int32 }

func (c *tripCounter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *tripCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

func (c *tripCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmds)
	}
}

func BenchmarkHit(b *testing.B) {
	w := begin(b, func(o *Options) { o.Limits = "default=1000000/1m" })
	w.put("user_books", "user_1", fill(b, books("user_1")))
	r := httptest.NewRequest(http.MethodGet, "/books/my", http.NoBody)
	r.Header.Set("Authorization", token(b, "user_1"))
	d := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(d.header)
		w.server.Handler().ServeHTTP(d, r)
	}
}
