package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
)

// redisTimeout bounds a question to Redis. One that is there but frozen would
// otherwise hold up requests until its client's own, longer timeouts.
const redisTimeout = 2 * time.Second

// exchange is one request with its caller, and the writer of its answer, which
// adds the times taken when the header goes out.
type exchange struct {
	http.ResponseWriter
	request *http.Request
	caller  caller
	route   *boundRoute

	server  *Server
	started time.Time
	redis   time.Duration // spent reading the entry
	fill    time.Duration // spent waiting for one
	status  int           // 0: the header has not gone out
	hidden  bool          // do not tell what the time was spent on
}

// WriteHeader adds Server-Timing and X-Process-Time.
func (x *exchange) WriteHeader(status int) {
	if x.status != 0 {
		return
	}
	x.status = status
	took := time.Since(x.started)
	h := x.Header()
	h["Server-Timing"] = []string{x.timing(took)}
	h["X-Process-Time"] = []string{string(appendSeconds(nil, took))}
	x.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body.
func (x *exchange) Write(body []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	return x.ResponseWriter.Write(body)
}

// Unwrap lets http.ResponseController reach the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// timing is the value of Server-Timing, in milliseconds.
func (x *exchange) timing(total time.Duration) string {
	b := make([]byte, 0, 64)
	entry := func(name string, d time.Duration) {
		if len(b) > 0 {
			b = append(b, ", "...)
		}
		b = append(b, name...)
		b = append(b, ";dur="...)
		b = strconv.AppendFloat(b, float64(d)/float64(time.Millisecond), 'f', 3, 64)
	}
	if x.redis > 0 && !x.hidden {
		entry("redis", x.redis)
	}
	if x.fill > 0 && !x.hidden {
		entry("fill", x.fill)
	}
	entry("total", total)
	return string(b)
}

// appendSeconds writes seconds with six decimals, as X-Process-Time has them.
func appendSeconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, d.Seconds(), 'f', 6, 64)
}

// read counts the request against the caller's limit and reads an entry, in one
// round trip. It sets the RateLimit fields. Its errors are problems: 429 over
// the limit, 503 while Redis is away.
func (x *exchange) read(v *view.View, key string, minXid *cache.MinXid) (cache.Result, error) {
	q := cache.Query{View: v, Key: key, MinXid: minXid}
	var limit cache.Limit
	if rule := x.route.rule; rule != nil && x.caller.limited != "" {
		limit = rule.limit(x.caller)
		q.Limit = &limit
	}
	ctx, cancel := context.WithTimeout(x.request.Context(), redisTimeout)
	defer cancel()
	begun := time.Now()
	result, err := x.server.store.Read(ctx, q)
	x.redis += time.Since(begun)
	if err != nil {
		return result, x.cacheAway(err)
	}
	x.server.back()
	if q.Limit != nil {
		x.route.rule.announce(x.Header(), result.Admission)
		if !result.Admission.Allowed {
			return result, x.route.rule.refusal(result.Admission)
		}
	}
	return result, nil
}

// cacheAway is the problem of an error of Redis, which it logs.
func (x *exchange) cacheAway(err error) *Problem {
	x.server.away(x.request.Context(), err)
	return problem(kindCacheAway, "Redis does not answer; nothing can be said without it").later(time.Second)
}

// json sends a value that is not an entry of the cache.
func (x *exchange) json(status int, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	h := x.Header()
	h["Content-Type"] = x.server.fixed.json
	if h["Cache-Control"] == nil {
		h["Cache-Control"] = x.server.fixed.noStore
	}
	if len(body) >= compressFrom {
		h.Add("Vary", "Accept-Encoding")
	}
	body = x.encode("", body)
	x.WriteHeader(status)
	_, _ = x.Write(body) // the client may be gone
	return nil
}

// constant sends what does not change while the program runs.
func (x *exchange) constant(media string, body []byte) error {
	h := x.Header()
	h.Set("Content-Type", media)
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept-Encoding")
	body = x.encode(media, body) // of each media type there is one
	x.WriteHeader(http.StatusOK)
	_, _ = x.Write(body) // the client may be gone
	return nil
}
