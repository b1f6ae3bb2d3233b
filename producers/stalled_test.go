package producers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mythiccache/internal/testserver"
)

// stalledBy waits until a relay says, and measures, what it waits for.
func (r *Relay) stalledBy(t *testing.T, why, says string) {
	t.Helper()
	testserver.Eventually(t, "the relay says that it is stalled by "+why, func() error {
		if ready := r.Ready(); ready == nil || !strings.Contains(ready.Error(), says) {
			return fmt.Errorf("it says %w", ready)
		}
		if got := valueOf(t, r.metrics.waits.WithLabelValues(why)); got != 1 {
			return fmt.Errorf("the metric is %v", got)
		}
		return nil
	})
}

// What Redis does to the relay has its name; rows wait, nothing is lost, and the lead
// stays where it is.
func TestWhatRedisDoesIsNamed(t *testing.T) {
	for _, c := range []struct {
		why, says  string
		break_, by func(b *bed) error
	}{
		{"redis away", "Redis: dial tcp", func(b *bed) error { b.redis.Kill(); return nil }, func(b *bed) error { return b.redis.Start(b.t.Context()) }},
		{"redis slow", "no answer within 5s: ", func(b *bed) error { return b.redis.Freeze() }, func(b *bed) error { return b.redis.Thaw() }},
		{
			"redis full", "Redis has less than a twentieth of its memory left",
			func(b *bed) error { return b.client.ConfigSet(b.t.Context(), "maxmemory", "512kb").Err() },
			func(b *bed) error { return b.client.ConfigSet(b.t.Context(), "maxmemory", "0").Err() },
		},
		{
			"redis refuses", "Redis: NOPERM",
			func(b *bed) error {
				return b.client.Do(b.t.Context(), "ACL", "SETUSER", "default", "-evalsha", "-eval").Err()
			},
			func(b *bed) error {
				return b.client.Do(b.t.Context(), "ACL", "SETUSER", "default", "+evalsha", "+eval").Err()
			},
		},
	} {
		t.Run(c.why, func(t *testing.T) {
			b := newBed(t)
			said := &testserver.Log{}
			o := b.options()
			o.Log = zerolog.New(said)
			r, _ := b.relayWith(o)
			b.sync()
			if err := c.break_(b); err != nil {
				t.Fatal(err)
			}
			b.exec(`SELECT count(mythic_cache.publish('run.started', 'r' || n)) FROM generate_series(1, 3000) n`)
			r.stalledBy(t, c.why, c.says)
			// Longer than a session may say nothing.
			from := time.Now()
			testserver.Eventually(t, "the backlog is counted all the while", func() error {
				if n := r.State().Backlog; n < 3000 || time.Since(from) < 2*sessionTimeout {
					return fmt.Errorf("%d rows after %s", n, time.Since(from))
				}
				return nil
			})
			r.stalledBy(t, c.why, c.says)
			if !r.State().Leader || strings.Count(said.String(), "relay leads no longer") > 0 || strings.Count(said.String(), "relay cannot write to Redis") > 2 {
				t.Errorf("the relay said\n%s", said.String())
			}
			if err := c.by(b); err != nil {
				t.Fatal(err)
			}
			b.balanced()
			testserver.Eventually(t, "it is ready", r.Ready)
			if n := len(gather(r.metrics.waits)); n != 0 {
				t.Errorf("%d metrics say that it waits", n)
			}
		})
	}
}

// gather returns the metrics of a collector.
func gather(c prometheus.Collector) (all []prometheus.Metric) {
	metrics := make(chan prometheus.Metric)
	go func() { c.Collect(metrics); close(metrics) }()
	for m := range metrics {
		all = append(all, m)
	}
	return all
}

// While Redis is away each commit may ring. Whoever sits that out keeps none of it.
func TestRingsAreNotHoarded(t *testing.T) {
	b := newBed(t)
	s := b.beating()
	do(t, s.lead.conn, `LISTEN mythic_cache`)
	for range 300 {
		b.exec(`SELECT mythic_cache.publish('run.started', 'r')`)
	}
	if err := s.lead.count(t.Context()); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if ring, err := s.lead.conn.WaitForNotification(over); !errors.Is(err, context.Canceled) || s.lead.conn.IsClosed() {
		t.Errorf("a ring is left: %v, %v", ring, err)
	}
}
