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

// maxAllocations of a hit with a token, a limit and all headers: from memory, and from
// Redis, go-redis's part included.
const (
	maxAllocations        = 6
	maxDistantAllocations = 22
)

// hits returns a function that makes one hit with a token and a limit.
func hits(t testing.TB, w *world) func() {
	t.Helper()
	w.put("user_books", "user_1", fill(t, books("user_1")))
	r := httptest.NewRequest(http.MethodGet, "/books/my", http.NoBody)
	r.Header.Set("Authorization", token(t, "user_1"))
	d := &discard{header: http.Header{}}
	return func() {
		clear(d.header)
		w.server.Handler().ServeHTTP(d, r)
		if d.status != http.StatusOK {
			t.Fatal(d.status)
		}
	}
}

func TestAHitIsCheap(t *testing.T) {
	w := begin(t, func(o *Options) { o.Limits = "default=1000000/1m" })
	hit := hits(t, w)
	hit() // the token is verified once
	if allocations := testing.AllocsPerRun(100, hit); allocations > maxDistantAllocations && !raceDetector {
		t.Errorf("a hit allocates %.0f times; at most %d are allowed", allocations, maxDistantAllocations)
	}
	trips := &tripCounter{}
	w.store.Client().AddHook(trips)
	hit()
	if n := trips.n.Load(); n != 1 {
		t.Errorf("a hit takes %d round trips to Redis", n)
	}
}

func TestAHitFromMemoryIsCheap(t *testing.T) {
	w := begin(t, nearBy(t), func(o *Options) { o.Limits = "default=1000000/1m" })
	hit := hits(t, w)
	hit()
	w.settle("/books/my", "Authorization", token(t, "user_1"))
	if allocations := testing.AllocsPerRun(1000, hit); allocations > maxAllocations && !raceDetector {
		t.Errorf("a hit allocates %.0f times; at most %d are allowed", allocations, maxAllocations)
	}
	trips := &tripCounter{}
	w.store.Client().AddHook(trips)
	const many = 1000
	for range many {
		hit()
	}
	// The limiter's: few at first, then a second's worth at a time.
	if n := trips.n.Load(); n > many/10 {
		t.Errorf("%d hits take %d round trips to Redis", many, n)
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
	for name, change := range map[string]func(*Options){"near": nearBy(b), "distant": func(*Options) {}} {
		b.Run(name, func(b *testing.B) {
			w := begin(b, change, func(o *Options) { o.Limits = "default=1000000000/1m" })
			hit := hits(b, w)
			b.ReportAllocs()
			for b.Loop() {
				hit()
			}
		})
	}
}
