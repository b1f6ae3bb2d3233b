package api

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestOptionsNamesTheMethods(t *testing.T) {
	w := begin(t)
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	for _, r := range w.server.routes() {
		path := strings.NewReplacer("{run_id}", "RUN1", "{key}", "k").Replace(r.path)
		a := w.do(http.MethodOptions, path, "")
		a.wants(t, 204, map[string]string{"Allow": ".*OPTIONS.*", "Content-Type": "", "Access-Control-Allow-Origin": ""})
		if allow := a.Header.Get("Allow"); !strings.Contains(allow, r.method) || strings.Contains(allow, "GET") != strings.Contains(allow, "HEAD") {
			t.Errorf("%s allows %s", r.path, allow)
		}
		if r.method == http.MethodGet { // HEAD is as GET, without the body
			get, head := w.get(path), w.do(http.MethodHead, path, "")
			if head.StatusCode != get.StatusCode || len(head.body) != 0 {
				t.Errorf("HEAD %s: %d, %d bytes", path, head.StatusCode, len(head.body))
			}
			for _, name := range []string{"Content-Type", "Cache-Control", "Cache-Status", "ETag", "Vary", "X-Cache"} {
				if got, want := head.Header.Get(name), get.Header.Get(name); got != want {
					t.Errorf("HEAD %s has %s: %q, and GET %q", path, name, got, want)
				}
			}
		}
		media := "application/problem\\+json"
		if strings.HasPrefix(path, "/v1/") { // OpenAI's form
			media = "application/json"
		}
		w.do(http.MethodDelete, path, "").wants(t, 405, map[string]string{"Allow": regexp.QuoteMeta(a.Header.Get("Allow")), "Content-Type": media})
	}
	w.do(http.MethodOptions, "/nothing", "").wants(t, 404, nil)
}

// preflight asks what a browser asks before it lets a page call.
func (w *world) preflight(origin, method, headers string) *answer {
	w.t.Helper()
	return w.do(http.MethodOptions, "/status/RUN1", "", "Origin", origin, "Access-Control-Request-Method", method, "Access-Control-Request-Headers", headers)
}

func TestPagesOfOtherOrigins(t *testing.T) {
	w := begin(t, func(o *Options) { o.Origins = "https://app.example.com, https://*.example.org" })
	for origin, allowed := range map[string]string{
		"https://app.example.com": "https://app.example.com", "https://a.example.org": "https://a.example.org", "https://a.b.example.org": "https://a.b.example.org",
		"http://app.example.com": "", "https://app.example.com.evil.example": "", "https://example.org": "", "https://evilexample.org": "", "null": "", "": "",
	} {
		w.preflight(origin, "GET", "authorization,if-none-match").wants(t, 204, map[string]string{
			"Access-Control-Allow-Origin": allowed, "Access-Control-Allow-Credentials": "", "Allow": "GET, HEAD, OPTIONS", "Vary": ".*Origin.*",
		})
	}
	w.preflight("https://app.example.com", "GET", "authorization,if-none-match").wants(t, 204, map[string]string{
		"Access-Control-Allow-Headers": "authorization,if-none-match", "Access-Control-Allow-Methods": "GET", "Access-Control-Max-Age": "600",
	})
	w.preflight("https://app.example.com", "DELETE", "").wants(t, 204, map[string]string{"Access-Control-Allow-Origin": ""})
	w.preflight("https://app.example.com", "GET", "x-user-id").wants(t, 204, map[string]string{"Access-Control-Allow-Origin": ""})

	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	w.get("/status/RUN1", "Origin", "https://app.example.com").wants(t, 200, map[string]string{
		"Access-Control-Allow-Origin": "https://app.example.com", "Access-Control-Expose-Headers": ".*Cache-Status.*", "Vary": ".*Origin.*",
	})
	for _, origin := range []string{"https://evil.example", ""} { // without Origin too: a shared copy must not lack it for a page
		w.get("/status/RUN1", "Origin", origin).wants(t, 200, map[string]string{"Access-Control-Allow-Origin": "", "Vary": ".*Origin.*"})
	}
	w.get("/status/none", "Origin", "https://app.example.com").wants(t, 503, map[string]string{"Access-Control-Allow-Origin": "https://app.example.com"})

	w = begin(t, func(o *Options) { o.Origins = "*" })
	w.get("/livez", "Origin", "https://any.example").wants(t, 200, map[string]string{"Access-Control-Allow-Origin": "\\*"})
	w = begin(t)
	w.get("/livez", "Origin", "https://any.example").wants(t, 200, map[string]string{"Access-Control-Allow-Origin": "", "Vary": ""})
}

func TestOriginsAreChecked(t *testing.T) {
	for text, good := range map[string]bool{
		"": true, " , ": true, "*": true, "https://a.example": true, "http://localhost:3000": true, "https://*.a.example:8443": true, "http://[::1]:3000": true,
		"a.example": false, "https://": false, "https://a.example/": false, "https://a.example/x": false, "https://*": false, "https://a*.example": false,
		"https://a.*.example": false, "ftp://a.example": false, "https://u@a.example": false, "https://a.example?x": false, "https://A.example": false, "null": false,
		"https://*.*.example": false, "https://a.example https://b.example": false,
	} {
		if _, err := parseOrigins(text); (err == nil) != good || err != nil && !strings.Contains(err.Error(), "CORS_ORIGINS: ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestALimitOfNothingIsRefused(t *testing.T) {
	w := begin(t)
	for limits, says := range map[string]string{
		"default=1/1m":                       "",
		"/=1/1m":                             "",
		"/status=1/1m,/books/my=1/1m":        "",
		"default=1/1m,/statuses=1/1m":        "RATE_LIMITS: /statuses limits nothing; what is counted are requests to /ai/answers, /ai/answers/{key}, /books/my, /status/{run_id}",
		"/events=1/1m":                       "/events limits nothing",
		"/status=1/1m,/status/{run_id}=1/1m": "/status limits nothing",
	} {
		o := w.server.o
		o.Registry, o.Limits = nil, limits
		_, err := New(o)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v", limits, err)
		}
	}
}
