package cache_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

func TestReports(t *testing.T) {
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	if reports, err := s.Reports(t.Context()); err != nil || len(reports) != 0 {
		t.Fatalf("%v, %v", reports, err)
	}
	at := time.UnixMilli(1_800_000_000_000).UTC()
	want := []cache.Report{
		{
			Instance: "a", Roles: []string{"workers"}, At: at,
			Views: map[string]cache.ViewCounts{"books": {Hits: 1, Saves: 2}},
			Groups: map[string]cache.GroupReport{"invalidate": {
				Topics: map[string]cache.TopicReport{"books": {Length: 1, Lag: 2, Pending: 3, OldestPending: time.Second}}, Dead: 4, Parked: 5,
			}},
			Staleness: &cache.Quantiles{Count: 9, P50: 0.001, P99: 0.01, P999: 0.1},
			AI:        &cache.AIReport{Calls: 1, Hits: 2, TokensSpent: 3, TokensSaved: 4},
		},
		{Instance: "b", Roles: []string{"relay"}, At: at, Relay: &cache.RelayReport{Leader: true, Position: "1:2:", Backlog: 3, LastDrain: at}},
	}
	for _, i := range []int{1, 0, 1} { // twice is once
		if err := s.PutReport(t.Context(), want[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Client().ZAdd(t.Context(), "mythic:report:index", redis.Z{Score: 1, Member: "gone"}).Err(); err != nil {
		t.Fatal(err)
	}
	got, err := s.Reports(t.Context())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("reports %+v, %v\nwant %+v", got, err, want)
	}
	if err := s.PutReport(t.Context(), want[0]); err != nil {
		t.Fatal(err)
	}
	if n := s.Client().ZCard(t.Context(), "mythic:report:index").Val(); n != 2 {
		t.Errorf("the index names %d instances", n)
	}
	if ttl := s.Client().PTTL(t.Context(), "mythic:report:{a}").Val(); ttl <= 0 || ttl > 30*time.Second {
		t.Errorf("a report lives for %s", ttl)
	}
}

func TestMetrics(t *testing.T) {
	r := testserver.NewRedis(t)
	registry := prometheus.NewPedanticRegistry()
	s := newStore(t, r, cache.Options{Metrics: registry})
	put(t, s, "a", at(20), "x")
	expect(t, s, "a", cache.Hit, "", "x")
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]int{}
	for _, family := range families {
		series[family.GetName()] = len(family.GetMetric())
	}
	// Six results of one view; a lease, a put and a read.
	if series["mythic_cache_operations_total"] != 6 || series["mythic_cache_operation_seconds"] != 3 {
		t.Errorf("series %v", series)
	}
	if _, err := cache.New(dial(r), cache.Options{Metrics: registry}); err == nil {
		t.Error("two stores share a registry")
	}
}
