package api

import (
	"encoding/json"
	"errors"
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
// adds the times taken when the header goes out. It is used again for another
// request: nothing may hold on to it, or to what is in it, once its handler returns.
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
	atOnce  bool          // it has come by the lane, where nobody may wait
	hidden  bool          // do not tell what the time was spent on, nor how much it was
	limit   cache.Limit   // that the request counts against
	values  headerValues  // that are different for each answer
}

// hiddenStep is how exactly a time is told that must not tell a hit from a fill.
const hiddenStep = 10 * time.Millisecond

// WriteHeader adds Server-Timing and X-Process-Time.
func (x *exchange) WriteHeader(status int) {
	if x.status != 0 {
		return
	}
	x.status = status
	took := time.Since(x.started)
	if x.hidden {
		took = took.Truncate(hiddenStep) + hiddenStep
	}
	v := &x.values
	v.begin("Server-Timing")
	v.text = x.appendTiming(v.text, took)
	v.begin("X-Process-Time")
	v.text = appendSeconds(v.text, took)
	v.into(x.Header())
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

// appendTiming writes the value of Server-Timing, in milliseconds.
func (x *exchange) appendTiming(b []byte, total time.Duration) []byte {
	if x.redis > 0 && !x.hidden {
		b = append(appendMillis(append(b, "redis;dur="...), x.redis), ", "...)
	}
	if x.fill > 0 && !x.hidden {
		b = append(appendMillis(append(b, "fill;dur="...), x.fill), ", "...)
	}
	return appendMillis(append(b, "total;dur="...), total)
}

// appendMillis writes milliseconds with three decimals.
func appendMillis(b []byte, d time.Duration) []byte {
	return appendFixed(b, d.Microseconds(), 1000)
}

// appendSeconds writes seconds with six decimals, as X-Process-Time has them.
func appendSeconds(b []byte, d time.Duration) []byte {
	return appendFixed(b, d.Microseconds(), 1_000_000)
}

// appendFixed writes n/unit, of which unit is a power of ten, with all its decimals.
func appendFixed(b []byte, n, unit int64) []byte {
	b = strconv.AppendInt(b, n/unit, 10)
	at := len(b)
	b = strconv.AppendInt(b, unit+n%unit, 10)
	b[at] = '.' // in place of the unit's one
	return b
}

// read counts the request against the caller's limit and reads an entry, from memory
// or in one round trip. It sets the RateLimit fields. Its errors are problems: 429 over
// the limit, 503 while Redis is away, unless the process has kept the entry, and the
// caller may read it: then it is Stale, and Why is cache.WhyAway.
func (x *exchange) read(v *view.View, key string, minXid *cache.MinXid) (cache.Result, error) {
	q := cache.Query{View: v, Key: key, MinXid: minXid, Asker: x.caller.user}
	if rule := x.route.rule; rule != nil && x.caller.limited != "" {
		x.limit = rule.limit(x.caller)
		q.Limit = &x.limit
	}
	begun := time.Now()
	result, err := x.look(q)
	if !result.Near {
		x.redis += time.Since(begun)
	}
	switch {
	case errors.Is(err, errNotAtOnce):
		return result, err
	case err != nil:
		return result, x.cacheAway(err)
	}
	switch {
	case result.Why == cache.WhyAway:
		x.server.away(x.request.Context(), errCopyServed)
	case !result.Near && !result.Admission.Alone:
		x.server.back()
	}
	if q.Limit != nil {
		x.route.rule.announce(&x.values, x.Header(), result.Admission)
		if !result.Admission.Allowed {
			return result, x.route.rule.refusal(result.Admission)
		}
	}
	return result, nil
}

// look reads an entry: in the lane, only if that takes no waiting.
func (x *exchange) look(q cache.Query) (cache.Result, error) {
	if !x.atOnce {
		return x.server.reader.Read(x.request.Context(), q)
	}
	result, ok := x.server.reader.Soon(x.request.Context(), q)
	if !ok {
		return result, errNotAtOnce
	}
	return result, nil
}

// errCopyServed is logged when the first request while Redis is away is answered with what
// was kept.
var errCopyServed = errors.New("answering with what is in memory")

// cacheAway is the problem of an error of Redis, which it logs.
func (x *exchange) cacheAway(err error) *Problem {
	if errors.Is(err, cache.ErrBusy) {
		return problem(kindBusy, "too many requests are waiting for Redis").later(time.Second)
	}
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
