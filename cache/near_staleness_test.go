package cache_test

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
)

// newMeasuredReader starts a reader, and returns how to see what it has measured.
func newMeasuredReader(t testing.TB, s *cache.Store) (*cache.Reader, func() *dto.Histogram) {
	t.Helper()
	metrics := prometheus.NewRegistry()
	r, err := s.NewReader(cache.ReaderOptions{Views: []*view.View{books()}, NearBytes: 1 << 20, Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); group.Wait() })
	testserver.Eventually(t, "the link", r.Ready)
	return r, func() *dto.Histogram {
		t.Helper()
		families, err := metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == "mythic_cache_near_staleness_seconds" {
				return family.GetMetric()[0].GetHistogram()
			}
		}
		t.Fatal("no histogram of staleness")
		return nil
	}
}

// quantile returns the upper bound of the bucket that has it.
func quantile(h *dto.Histogram, q float64) time.Duration {
	for _, bucket := range h.GetBucket() {
		if float64(bucket.GetCumulativeCount()) >= q*float64(h.GetSampleCount()) {
			return time.Duration(bucket.GetUpperBound() * float64(time.Second))
		}
	}
	return math.MaxInt64
}

// TestStalenessOfMemoryIsMeasured holds Redis's word of a write back for a while.
func TestStalenessOfMemoryIsMeasured(t *testing.T) {
	t.Parallel()
	const held = 100 * time.Millisecond
	server := testserver.NewRedis(t)
	s, gate := newGatedStore(t, server, cache.Options{})
	r, measured := newMeasuredReader(t, s)
	expect := func(what string, count uint64, least time.Duration) {
		t.Helper()
		h := measured()
		if h.GetSampleCount() != count || h.GetSampleSum() < least.Seconds() || h.GetSampleSum() > float64(count) {
			t.Errorf("%s: %d with a sum of %f s; %d with %s at least were to be measured", what, h.GetSampleCount(), h.GetSampleSum(), count, least)
		}
	}
	holdBack := func(write func()) {
		t.Helper()
		settle(t, r, book("a"))
		gate.held.Lock()
		write()
		<-time.After(held)
		gate.held.Unlock()
		caughtUp(t, r)
		readBy(t, r, book("a"))
	}
	put(t, s, "a", at(20), "first")
	holdBack(func() { put(t, s, "a", at(21), "second") })
	expect("put", 1, held*9/10)
	holdBack(func() { invalidate(t, s, "a", at(30).Version()) })
	expect("invalidated", 2, 2*held*9/10)
	put(t, s, "a", at(31), "third")
	holdBack(func() { invalidate(t, s, "a", cache.Change{}.Version) })
	expect("invalidated without a version", 3, 3*held*9/10)
	put(t, s, "a", at(32), "fourth")
	holdBack(func() { lease(t, s, books(), "a") })
	expect("leased, which makes nothing stale", 3, 3*held*9/10)

	// Two writes, one of which was heard of: nobody knows when the other came.
	settle(t, r, book("a"))
	invalidate(t, s, "a", at(40).Version())
	caughtUp(t, r)
	<-time.After(10 * time.Millisecond)
	invalidate(t, s, "a", at(50).Version())
	readBy(t, r, book("a"))
	expect("written again", 3, 3*held*9/10)
}

// TestMemoryAddsLittleStaleness has many read while few keys change all the time. The
// bound is for a machine that does much besides; see BenchmarkNearStaleness.
func TestMemoryAddsLittleStaleness(t *testing.T) {
	t.Parallel()
	h := churn(t, newStore(t, testserver.NewRedis(t), cache.Options{}), 400)
	p99 := quantile(h, 0.99)
	t.Logf("p50 %s, p99 %s of %d", quantile(h, 0.5), p99, h.GetSampleCount())
	if p99 > 250*time.Millisecond {
		t.Errorf("memory was behind by %s at p99", p99)
	}
	if h.GetSampleCount() < 100 {
		t.Errorf("%d were measured", h.GetSampleCount())
	}
}

// churn has readers ask for few keys while these are written so many times, in turn by a
// change and a fill, and by a fill alone. It returns what the readers have measured.
func churn(t testing.TB, s *cache.Store, writes int) *dto.Histogram {
	t.Helper()
	const keys, readers = 8, 4
	r, measured := newMeasuredReader(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range readers {
		group.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				if _, err := r.Read(context.Background(), book(strconv.Itoa(n%keys))); err != nil {
					t.Error(err)
					return
				}
				if n%10 == 0 {
					time.Sleep(100 * time.Microsecond) // or they would have the processors to themselves, as no network lets them
				}
			}
		})
	}
	for n := range writes {
		key, snapshot := strconv.Itoa(n%keys), at(uint64(100+n))
		if n/keys%2 == 0 {
			_, err := s.Invalidate(t.Context(), []cache.Change{{View: books(), Key: key, Version: snapshot.Version()}})
			if err != nil {
				t.Fatal(err)
			}
		}
		l, err := s.Lease(t.Context(), books(), key, time.Minute)
		if err == nil {
			_, err = s.Put(t.Context(), l, fill(snapshot, body()))
		}
		if err != nil {
			t.Fatal(err)
		}
		testserver.Eventually(t, "it is in memory", func() error {
			got, err := r.Read(t.Context(), book(key))
			if err == nil && !got.Near {
				err = fmt.Errorf("%s", summary(got))
			}
			return err
		})
	}
	cancel()
	group.Wait()
	return measured()
}

// BenchmarkNearStaleness measures what memory adds to the age of an answer, under load;
// one operation is one write.
func BenchmarkNearStaleness(b *testing.B) {
	h := churn(b, benchStore(b), b.N)
	b.ReportMetric(quantile(h, 0.5).Seconds()*1e3, "ms-p50")
	b.ReportMetric(quantile(h, 0.99).Seconds()*1e3, "ms-p99")
	b.ReportMetric(float64(h.GetSampleCount()), "samples")
}
