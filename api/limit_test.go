package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestLimits(t *testing.T) {
	w := begin(t, func(o *Options) { o.Limits = "default=2/1h,/status=3/1h" })
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	w.put("user_books", "user_1", fill(t, books("user_1")))
	w.put("user_books", "user_2", fill(t, books("user_2")))
	for _, left := range []string{"2", "1", "0"} {
		w.get("/status/RUN1").wants(t, 200, map[string]string{
			"RateLimit": `"/status";r=` + left + `;t=[1-9][0-9]*`, "RateLimit-Policy": `"/status";q=3;w=3600`,
		})
	}
	a := w.get("/status/RUN1")
	a.wants(t, 429, map[string]string{
		"Retry-After": "(1[12]|120)[0-9]*", "RateLimit": `"/status";r=0;t=[1-9][0-9]*`, "RateLimit-Policy": `"/status";q=3;w=3600`,
		"X-Cache": "", "ETag": "",
	})
	if p := a.problem(t); p.Type != "/docs#rate-limited" || p.Detail == "" {
		t.Errorf("problem %+v", p)
	}
	// A user is counted apart from the address that he comes from, and from others.
	w.get("/status/RUN1", "Authorization", token(t, "user_1")).wants(t, 200, nil)
	for range 2 {
		w.get("/books/my", "Authorization", token(t, "user_1")).wants(t, 200, map[string]string{"RateLimit-Policy": `"default";q=2;w=3600`})
	}
	w.get("/books/my", "Authorization", token(t, "user_1")).wants(t, 429, nil)
	w.get("/books/my", "Authorization", token(t, "user_2")).wants(t, 200, nil)
	// On a user's behalf the app spends the user's quota.
	w.get("/books/my", "Authorization", "Bearer "+eventsToken, "X-User-Id", "user_1").wants(t, 429, nil)
	// Probes and the app itself are not limited.
	for range 5 {
		w.get("/livez").wants(t, 200, map[string]string{"RateLimit": ""})
		w.get("/status/RUN1", "Authorization", "Bearer "+eventsToken).wants(t, 200, map[string]string{"RateLimit": ""})
	}
	for key, ttl := range w.ttls("mythic:rate:*") {
		if ttl <= 0 {
			t.Errorf("%s never expires", key)
		}
	}
}

// ttls returns what keys live for.
func (w *world) ttls(pattern string) map[string]time.Duration {
	w.t.Helper()
	keys, err := w.client.Keys(w.t.Context(), pattern).Result()
	if err != nil || len(keys) == 0 {
		w.t.Fatalf("no keys %s: %v", pattern, err)
	}
	ttls := map[string]time.Duration{}
	for _, key := range keys {
		ttls[key] = w.client.TTL(w.t.Context(), key).Val()
	}
	return ttls
}

func TestNeverOneAdmittedTooMany(t *testing.T) {
	w := begin(t, func(o *Options) { o.Limits = "default=25/1h" })
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	var admitted, refused atomic.Int32
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			for range 10 {
				r, _ := http.NewRequest(http.MethodGet, w.url+"/status/RUN1", http.NoBody)
				a, err := send(r)
				switch {
				case err != nil:
					t.Error(err)
				case a.StatusCode == http.StatusOK:
					admitted.Add(1)
				case a.StatusCode == http.StatusTooManyRequests:
					refused.Add(1)
				}
			}
		})
	}
	group.Wait()
	if admitted.Load() != 25 || refused.Load() != 75 {
		t.Errorf("%d admitted, %d refused", admitted.Load(), refused.Load())
	}
}

func TestParseLimits(t *testing.T) {
	l, err := parseLimits(" default=100/1m, /status = 600/60 ,/a/b=1/1s,")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/status/{run_id}": "/status /status 600 1m0s", "/status": "/status /status 600 1m0s",
		"/statuses": "default /statuses 100 1m0s", "/a/b/c": "/a/b /a/b 1 1s", "/a": "default /a 100 1m0s",
	} {
		r := l.of(path)
		if got := strings.Join([]string{r.name, r.bucket, strings.Trim(r.policy[0][strings.Index(r.policy[0], "q=")+2:strings.Index(r.policy[0], ";w")], " "), r.per.String()}, " "); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if l, err := parseLimits(""); err != nil || l.of("/x") != nil {
		t.Errorf("no rules: %v %v", l, err)
	}
	for _, bad := range []string{
		"default", "default=100", "default=/1m", "default=x/1m", "default=0/1m", "default=-1/1m", "default=1/0", "default=1/x",
		"default=1/1ms", "default=1/48h", "status=1/1m", "=1/1m", `/a"b=1/1m`, "/a\nb=1/1m", "default=1/1m,default=2/1m", "default=9999999999/1m",
	} {
		if _, err := parseLimits(bad); err == nil || !strings.HasPrefix(err.Error(), "RATE_LIMITS: ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestAnonymousCallersAreTheirAddress(t *testing.T) {
	for _, c := range []struct{ remote, forwarded, direct, gateway string }{
		{"192.0.2.1:5000", "", "192.0.2.1", "192.0.2.1"},
		{"192.0.2.1:5000", "203.0.113.9", "192.0.2.1", "203.0.113.9"},
		{"192.0.2.1:5000", "10.0.0.1, 203.0.113.9", "192.0.2.1", "203.0.113.9"}, // the first is what the client made up
		{"[::ffff:192.0.2.1]:5000", "", "192.0.2.1", "192.0.2.1"},
		{"[2001:db8:1:2:3:4:5:6]:5000", "2001:db8:9:9::1", "2001:db8:1:2::/64", "2001:db8:9:9::/64"},
		{"[fe80::1%eth0]:5000", "nonsense", "fe80::/64", "unknown"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.RemoteAddr = c.remote
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := addressCaller(r, false).limited; got != "address:"+c.direct {
			t.Errorf("%+v: %s", c, got)
		}
		if got := addressCaller(r, true).limited; got != "address:"+c.gateway {
			t.Errorf("%+v behind a gateway: %s", c, got)
		}
	}
}
