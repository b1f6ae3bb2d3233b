package consumers

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

func TestReportsTellWhatTheProcessCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	keys := stream.NewKeys("mythic:")
	client := w.redis.Client(t)
	p, err := stream.NewPublisher(w.dial, keys, stream.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 3 {
		if _, err := p.Append(w.ctx, event.Event{Type: "things.forgotten", Subject: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.XGroupCreate(w.ctx, keys.Topic("things"), "invalidate", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Do(w.ctx, "XREADGROUP", "GROUP", "invalidate", "me", "COUNT", 1, "STREAMS", keys.Topic("things"), ">").Err(); err != nil {
		t.Fatal(err)
	}
	r, err := NewReporter(w.store, ReporterOptions{
		Instance: "one", Roles: []string{"workers"}, Keys: keys, Topics: []string{"things", "others"}, Every: time.Hour,
		Staleness: func() *cache.Quantiles { return &cache.Quantiles{Count: 7} },
		Relay:     func() *cache.RelayReport { return &cache.RelayReport{Leader: true} },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.fill("thing", "a")
	w.body("thing", "a")
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	var reports []cache.Report
	testserver.Eventually(t, "report", func() error {
		var err error
		if reports, err = w.store.Reports(w.ctx); err == nil && len(reports) == 0 {
			err = errors.New("no report")
		}
		return err
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	got := reports[0]
	topic := got.Groups["invalidate"].Topics["things"]
	if got.Instance != "one" || got.Views["thing"].Hits != 1 || got.Views["thing"].Saves != 1 || got.Staleness.Count != 7 || !got.Relay.Leader || got.AI != nil {
		t.Errorf("report %+v", got)
	}
	if topic.Length != 3 || topic.Lag != 2 || topic.Pending != 1 || topic.OldestPending <= 0 {
		t.Errorf("topic %+v", topic)
	}
	if _, err := NewReporter(w.store, ReporterOptions{}); err == nil {
		t.Error("a reporter without a name was made")
	}
}

// A user of Redis who may not measure keys is told everything else.
func TestReportsWithoutMemoryUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	keys, metrics := stream.NewKeys("mythic:"), prometheus.NewRegistry()
	client := w.redis.Client(t)
	if err := client.XGroupCreateMkStream(w.ctx, keys.Topic("things"), "invalidate", "0").Err(); err != nil {
		t.Fatal(err)
	}
	r, err := NewReporter(w.store, ReporterOptions{Instance: "one", Keys: keys, Topics: []string{"things"}, Every: time.Minute, Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	shown := func() (all []string) {
		families, err := metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			all = append(all, strings.TrimPrefix(family.GetName(), "mythic_cache_stream_"))
		}
		return all
	}
	if err := r.report(w.ctx); err != nil || !slices.Contains(shown(), "dead_letters_bytes") {
		t.Errorf("%v, shown %q", err, shown())
	}
	if err := client.Do(w.ctx, "ACL", "SETUSER", "default", "-memory|usage").Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.report(w.ctx); err != nil || slices.Contains(shown(), "dead_letters_bytes") || !slices.Contains(shown(), "lag") {
		t.Errorf("without MEMORY USAGE: %v, shown %q", err, shown())
	}
	reports, err := w.store.Reports(w.ctx)
	if err != nil || len(reports) != 1 || len(reports[0].Groups) != 1 {
		t.Errorf("%v, reports %+v", err, reports)
	}
}
