package cache_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

// The figures mean something beside BenchmarkBareGet and BenchmarkBareSet of the
// same run.
func benchStore(b *testing.B) *cache.Store {
	b.Helper()
	s, err := cache.New(dial(testserver.NewRedis(b, "--appendonly", "no")), cache.Options{StaleFor: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	if err := s.EnsureViews(b.Context(), []*view.View{books()}, at(1).Version()); err != nil {
		b.Fatal(err)
	}
	return s
}

// body is as long as a status document.
func body() string { return strings.Repeat("0123456789", 63) }

func BenchmarkBareGet(b *testing.B) {
	s := benchStore(b)
	if err := s.Client().Set(b.Context(), "k", body(), time.Hour).Err(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := s.Client().Get(b.Context(), "k").Err(); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for name, limit := range map[string]*cache.Limit{
		"plain": nil, "limited": {Caller: "me", Rule: "r", Count: 1 << 30, Per: time.Second},
	} {
		b.Run(name, func(b *testing.B) {
			s, text := benchStore(b), body()
			l, err := s.Lease(b.Context(), books(), "k", time.Minute)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := s.Put(b.Context(), l, fill(at(2), text)); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					r, err := s.Read(b.Context(), cache.Query{View: books(), Key: "k", Limit: limit})
					if err != nil || r.Status != cache.Hit {
						b.Errorf("%+v, %v", r, err)
					}
				}
			})
		})
	}
}

func BenchmarkBareSet(b *testing.B) {
	s, text := benchStore(b), body()
	for i := range b.N {
		if err := s.Client().Set(b.Context(), strconv.Itoa(i%1000), text, time.Hour).Err(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFill takes a lease, puts and announces: three round trips.
func BenchmarkFill(b *testing.B) {
	s, text := benchStore(b), body()
	for i := range b.N {
		l, err := s.Lease(b.Context(), books(), strconv.Itoa(i%1000), time.Minute)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Put(b.Context(), l, fill(at(2), text)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInvalidate applies batches of 100 changes; one operation is a batch.
func BenchmarkInvalidate(b *testing.B) {
	s := benchStore(b)
	for i := range b.N {
		changes := make([]cache.Change, 100)
		for j := range changes {
			changes[j] = cache.Change{View: books(), Key: strconv.Itoa(j), Version: at(uint64(10 + i)).Version()}
		}
		if n, err := s.Invalidate(b.Context(), changes); err != nil || n != len(changes) {
			b.Fatal(n, err)
		}
	}
}
