package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"mythiccache/cache"
)

func TestRedisHealth(t *testing.T) {
	w := begin(t)
	a := w.get("/health/redis")
	a.wants(t, 200, map[string]string{"Cache-Control": "no-store"})
	var h redisHealth
	if err := json.Unmarshal(a.body, &h); err != nil {
		t.Fatal(err)
	}
	if h.Status != "ok" || !h.Connected || h.Role != "master" || h.UsedMemory < 100_000 || h.LatencyMS <= 0 || !regexp.MustCompile(`^\d+\.\d+`).MatchString(h.Version) {
		t.Errorf("%+v", h)
	}
}

func TestReadyNamesThePartThatIsNot(t *testing.T) {
	parts := map[string]error{"redis": nil, "relay": nil}
	w := begin(t, func(o *Options) { o.Parts = func() map[string]error { return parts } })
	w.get("/readyz").wants(t, 200, nil)
	parts["relay"] = errors.New("dial tcp db-7:5432: connection refused")
	a := w.get("/readyz")
	a.wants(t, 503, map[string]string{"Retry-After": "1"})
	if p := a.problem(t); p.Parts["relay"] != "not ready" || p.Parts["redis"] != "ready" || strings.Contains(string(a.body), "db-7") {
		t.Errorf("%s", a.body)
	}
	a = w.get("/readyz", "Authorization", "Bearer "+adminToken)
	if p := a.problem(t); !strings.Contains(p.Parts["relay"], "db-7") {
		t.Errorf("%s", a.body)
	}
	w.get("/readyz", "Authorization", "Bearer "+eventsToken).wants(t, 503, nil)
	w.get("/livez").wants(t, 200, nil)
}

// A part that does less than it was to is named, and keeps the process no less ready.
func TestReadyThoughAPartIsImpaired(t *testing.T) {
	parts := map[string]error{"redis": nil, "queries": fmt.Errorf("%w: no table letters", ErrImpaired)}
	w := begin(t, func(o *Options) { o.Parts = func() map[string]error { return parts } })
	a := w.get("/readyz")
	a.wants(t, 200, nil)
	if !strings.Contains(string(a.body), `"queries":"impaired"`) || strings.Contains(string(a.body), "letters") {
		t.Errorf("%s", a.body)
	}
	if a = w.get("/readyz", "Authorization", "Bearer "+adminToken); !strings.Contains(string(a.body), `"queries":"impaired: no table letters"`) {
		t.Errorf("%s", a.body)
	}
	parts["redis"] = errors.New("away")
	a = w.get("/readyz")
	a.wants(t, 503, nil)
	if p := a.problem(t); p.Parts["queries"] != "impaired" || !strings.HasPrefix(p.Detail, "1 of 2") {
		t.Errorf("%s", a.body)
	}
}

func TestStatsSumAllProcesses(t *testing.T) {
	w := begin(t, func(o *Options) { o.Instance = "here" })
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	w.get("/status/RUN1").wants(t, 200, nil)
	now := time.Now()
	for _, r := range []cache.Report{
		{Instance: "here", At: now, Views: map[string]cache.ViewCounts{"run_status": {Hits: 1000}}},
		{
			Instance: "one", At: now.Add(-time.Second), Views: map[string]cache.ViewCounts{"run_status": {Hits: 4, Misses: 2}, "user_books": {Hits: 1, Stale: 1}},
			Groups:    map[string]cache.GroupReport{"invalidate": {Dead: 9, Topics: map[string]cache.TopicReport{"books": {Length: 1, Lag: 1, Pending: 1}}}},
			Staleness: &cache.Quantiles{Count: 10, P50: 0.001, P99: 0.02, P999: 0.5}, AI: &cache.AIReport{Calls: 1, Hits: 2, TokensSpent: 3, TokensSaved: 4},
			Relay: &cache.RelayReport{Leader: true, Position: "1-5", Backlog: 7, OutboxBytes: 8192, LastDrain: now},
		},
		{
			Instance: "two", At: now, Views: map[string]cache.ViewCounts{"run_status": {Misses: 1}},
			Groups:    map[string]cache.GroupReport{"invalidate": {Dead: 2, Parked: 3, Topics: map[string]cache.TopicReport{"books": {Length: 50, Lag: 5, Pending: 6, OldestPending: 1500 * time.Millisecond}}}},
			Staleness: &cache.Quantiles{Count: 5, P50: 0.002, P99: 0.01, P999: 0.4}, AI: &cache.AIReport{Calls: 1, TokensSpent: 10, MoneySaved: 0.5},
			Relay: &cache.RelayReport{Position: "standby"},
		},
	} {
		if err := w.store.PutReport(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	a := w.get("/cache/stats")
	a.wants(t, 200, nil)
	var s stats
	if err := json.Unmarshal(a.body, &s); err != nil {
		t.Fatal(err)
	}
	status := s.Views["run_status"]
	switch {
	case s.Instances != 3, s.Hits != 6, s.Misses != 3, s.Stale != 1, s.HitRate != 0.6:
		t.Errorf("sums: %s", a.body)
	case status.Hits != 5 || status.Misses != 3 || status.Saves != 1 || status.HitRate != 0.625:
		t.Errorf("run_status: %+v", status)
	case s.Groups["invalidate"] != groupStats{Dead: 2, Parked: 3}:
		t.Errorf("groups: %+v", s.Groups)
	case s.Streams["books"].Length != 50 || s.Streams["books"].Groups["invalidate"] != topicStats{Lag: 5, Pending: 6, OldestPendingMS: 1500}:
		t.Errorf("streams: %+v", s.Streams)
	case *s.Staleness != cache.Quantiles{Count: 15, P50: 0.002, P99: 0.02, P999: 0.5}:
		t.Errorf("staleness: %+v", s.Staleness)
	case s.AI.Calls != 2 || s.AI.TokensSpent != 13 || s.AI.MoneySaved != 0.5:
		t.Errorf("ai: %+v", s.AI)
	case s.Relay == nil || s.Relay.Position != "1-5" || s.Relay.Backlog != 7 || s.Relay.OutboxBytes != 8192:
		t.Errorf("relay: %+v", s.Relay)
	case s.Memory.Used == 0:
		t.Errorf("memory: %+v", s.Memory)
	}
}

// What single users cost is for the operator.
func TestStatsOfScopes(t *testing.T) {
	w := begin(t)
	if err := w.store.AddCosts(t.Context(), []cache.ScopeCost{{Scope: cache.HashScope("user_1"), TokensSpent: 7, MoneySaved: 0.5}}); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{adminToken: 1, eventsToken: 0, "": 0} {
		a := w.get("/cache/stats", "Authorization", "Bearer "+token)
		a.wants(t, 200, nil)
		var s stats
		if err := json.Unmarshal(a.body, &s); err != nil {
			t.Fatal(err)
		}
		if len(s.AIScopes) != want || want == 1 && s.AIScopes[0].TokensSpent != 7 {
			t.Errorf("with the token %q the scopes are %+v", token, s.AIScopes)
		}
	}
}

func TestStatsOfNothing(t *testing.T) {
	w := begin(t)
	w.get("/cache/stats").wants(t, 200, nil)
}

func TestMetricsHaveBoundedLabels(t *testing.T) {
	w := begin(t)
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	w.get("/status/RUN1").wants(t, 200, nil)
	w.get("/made/up/by/the/client").wants(t, 404, nil)
	w.do("MADEUP", "/status/RUN1", "").wants(t, 405, nil)
	a := w.get("/metrics")
	a.wants(t, 200, map[string]string{"Content-Type": "text/plain.*"})
	for _, line := range []string{
		`mythic_cache_http_requests_total{route="/status/{run_id}",status="2xx"} 1`,
		`mythic_cache_http_requests_total{route="other",status="4xx"} 2`,
		"mythic_cache_http_waiting 0",
	} {
		if !strings.Contains(string(a.body), line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if strings.Contains(strings.ToLower(string(a.body)), "madeup") || strings.Contains(string(a.body), "made/up") {
		t.Error("the client made a label")
	}
}
