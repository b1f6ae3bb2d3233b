package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// operatorRoutes are for whoever runs the program, and for its probes.
func (s *Server) operatorRoutes() []route {
	metrics := promhttp.HandlerFor(s.o.Registry, promhttp.HandlerOpts{})
	get := func(path, operation string, handle func(*exchange) error) route {
		return route{method: http.MethodGet, path: path, operation: operation, handle: handle}
	}
	return []route{
		get("/health/redis", "getRedisHealth", s.getRedisHealth),
		get("/cache/stats", "getStats", s.getStats),
		get("/livez", "getLive", func(x *exchange) error {
			return x.json(http.StatusOK, map[string]string{"status": "ok"})
		}),
		get("/readyz", "getReady", s.getReady),
		get("/metrics", "getMetrics", func(x *exchange) error {
			metrics.ServeHTTP(x, x.request)
			return nil
		}),
	}
}

// redisHealth is what Redis says of itself.
type redisHealth struct {
	Status     string  `json:"status"`
	LatencyMS  float64 `json:"latency_ms"`
	Version    string  `json:"version"`
	Role       string  `json:"role"`
	UsedMemory int64   `json:"used_memory"` // bytes
	MaxMemory  int64   `json:"maxmemory"`   // bytes; 0: no limit
	Connected  bool    `json:"connected"`
}

// getRedisHealth asks Redis how it is.
func (s *Server) getRedisHealth(x *exchange) error {
	ctx, cancel := context.WithTimeout(x.request.Context(), redisTimeout)
	defer cancel()
	begun := time.Now()
	health, err := s.redisHealth(ctx)
	x.redis += time.Since(begun)
	health.LatencyMS = milliseconds(x.redis)
	if err != nil {
		p := x.cacheAway(err)
		connected := false
		p.Connected, p.LatencyMS = &connected, &health.LatencyMS
		return p
	}
	s.back()
	return x.json(http.StatusOK, health)
}

func (s *Server) redisHealth(ctx context.Context) (redisHealth, error) {
	text, err := s.store.Client().Info(ctx, "server", "replication", "memory").Result()
	if err != nil {
		return redisHealth{}, fmt.Errorf("ask redis how it is: %w", err)
	}
	info := parseInfo(text)
	used, _ := strconv.ParseInt(info["used_memory"], 10, 64) // 0 where Redis does not say
	limit, _ := strconv.ParseInt(info["maxmemory"], 10, 64)
	return redisHealth{
		Status: "ok", Version: info["redis_version"], Role: info["role"],
		UsedMemory: used, MaxMemory: limit, Connected: true,
	}, nil
}

// parseInfo reads the lines of INFO, name:value.
func parseInfo(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}

// ErrImpaired is wrapped by what is wrong with a part that is ready nevertheless: it does
// less than it was to, and no other process would do better.
var ErrImpaired = errors.New("impaired")

// getReady says whether every part is ready, and which one is not. Why is for
// who shows ADMIN_TOKEN: it may name hosts and users.
func (s *Server) getReady(x *exchange) error {
	var states map[string]error
	if s.o.Parts != nil {
		states = s.o.Parts()
	}
	admin := s.auth.administers(x.request)
	parts := make(map[string]string, len(states))
	waiting := 0
	for name, err := range states {
		impaired := errors.Is(err, ErrImpaired)
		switch {
		case err == nil:
			parts[name] = "ready"
		case admin && impaired:
			parts[name] = err.Error()
		case impaired:
			parts[name] = "impaired"
		case admin:
			parts[name] = err.Error()
			waiting++
		default:
			parts[name] = "not ready"
			waiting++
		}
	}
	if waiting > 0 {
		p := problem(kindNotReady, fmt.Sprintf("%d of %d parts are not ready", waiting, len(parts))).later(time.Second)
		p.Parts = parts
		return p
	}
	return x.json(http.StatusOK, map[string]any{"status": "ready", "parts": parts})
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
