package consumers

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metricdata "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// shows returns what a metric without labels shows.
func shows(t *testing.T, one prometheus.Metric) float64 {
	t.Helper()
	var d metricdata.Metric
	if err := one.Write(&d); err != nil {
		t.Fatal(err)
	}
	return d.GetGauge().GetValue() + d.GetCounter().GetValue()
}

// What is over goes by itself, and what is left is counted.
func TestRevocationsGoWithTheirTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	var log strings.Builder
	metrics := prometheus.NewPedanticRegistry()
	sweeper, err := NewSweeper(w.store, SweeperOptions{Every: 10 * time.Millisecond, Metrics: metrics, Log: zerolog.New(&log)})
	if err != nil {
		t.Fatal(err)
	}
	over, kept := cache.RevokedJTI("over"), cache.RevokedJTI("kept")
	over.At, kept.At = time.Now(), time.Now()
	if err := w.store.Revoke(w.ctx, []cache.Revocation{over, kept}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan error)
	go func() { ended <- sweeper.Run(ctx) }()
	testserver.Eventually(t, "two are counted", func() error {
		if n := shows(t, sweeper.kept); n != 2 {
			return errors.New("not yet")
		}
		return nil
	})
	if err := w.store.Client().ZAdd(w.ctx, "mythic:revoked:index", redis.Z{Score: float64(time.Now().UnixMilli() - 1000), Member: over.Name()}).Err(); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "one is swept", func() error {
		if shows(t, sweeper.swept) != 1 || shows(t, sweeper.kept) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	for jti, want := range map[string]bool{"over": false, "kept": true} {
		if got, err := w.store.Revoked(w.ctx, cache.Token{JTI: jti}); err != nil || got != want {
			t.Errorf("%s is revoked: %t, %v", jti, got, err)
		}
	}
	if all, err := metrics.Gather(); err != nil || len(all) != 2 {
		t.Errorf("%d metrics, %v", len(all), err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, left := range []int64{cache.ManyRevocations + 1, cache.ManyRevocations + 2, 0, 1} {
		sweeper.warn(left)
	}
	if n := strings.Count(log.String(), "revocations of tokens"); n != 2 {
		t.Errorf("it was said %d times: %s", n, &log)
	}
}
