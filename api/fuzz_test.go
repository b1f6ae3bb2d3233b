package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"

	"mythiccache/producers/event"
)

// FuzzRequests throws requests at the whole handler, with a Redis that holds a few
// entries and no worker behind it. None may panic, none may be a 5xx but 503, every
// error is a problem document, and what the OpenAPI document has an operation for is
// as that says.
func FuzzRequests(f *testing.F) {
	good := token(f, "user")
	for _, seed := range [][]string{
		{"GET", "/status/RUN1", "Bearer x.y.z\nX-User-Id: user\nX-Min-Xid: 7-9\nIf-None-Match: \"a\", W/\"b\"", ""},
		{"GET", "/status/RUN1", "Accept-Encoding: gzip\nPrefer: wait=0", ""},
		{"GET", "/status/RUN1", "If-None-Match: *\nPrefer: wait=1", ""},
		{"GET", "/status/RUN1", "Accept: text/event-stream\nLast-Event-ID: 1", ""},
		{"GET", "/status/RUN2", "X-Min-Xid: 18446744073709551616", ""},
		{"HEAD", "/books/my", "Authorization: " + good + "\nX-Min-Xid: 1-100", ""},
		{"GET", "/books/my", "Authorization: Bearer " + eventsToken + "\nX-User-Id: user", ""},
		{"GET", "/status/%2e%2e%2f%00", "Authorization: Basic\nX-User-Id: \x00", ""},
		{"POST", "/events", "Authorization: Bearer " + eventsToken, `{"type":"run.started","subject":"r"}`},
		{"POST", "/events", "Authorization: Bearer " + eventsToken + "\nContent-Type: " + structured, cloud("run.started", `,"subject":"r","data":{"a":[1]}`)},
		{"POST", "/events", "Authorization: Bearer " + eventsToken + "\nContent-Type: " + batch, "[" + cloud("ai.forget", `,"data_base64":"MQ=="`) + ",7]"},
		{"POST", "/events", "Authorization: Bearer " + eventsToken + "\nCe-Id: \"%41\"\nCe-Source: a\nCe-Specversion: 1.0\nCe-Type: run.failed\nCe-Subject: r", "{}"},
		{"POST", "/ai/answers", "Authorization: " + good + "\nPrefer: respond-async", `{"prompt":"why?"}`},
		{"GET", "/ai/answers/" + strings.Repeat("a", 64), "Authorization: " + good, ""},
		{"GET", "/cache/stats", "Accept-Encoding: *", ""},
		{"GET", "/readyz", "Authorization: Bearer " + adminToken, ""},
		{"GET", "/docs", "Accept-Encoding: gzip;q=0.1, identity;q=0", ""},
		{"OPTIONS", "/status/x", "Origin: https://a.example\nAccess-Control-Request-Method: GET", ""},
		{"CONNECT", "", "", ""}, {"GET", "//x/../y", "Authorization: Bearer", ""}, {"OPTIONS", "*", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], []byte(seed[3]))
	}
	w := begin(f, func(o *Options) { o.MissWait = 1; o.Limits = "default=50/1h"; o.Origins = "https://a.example" })
	for name, of := range map[string]string{"RUN1": "", "RUN2": "other"} {
		entry := fill(f, large(name))
		entry.Owned, entry.Owner = of != "", of
		w.put("run_status", name, entry)
	}
	w.put("user_books", "user", fill(f, books("user")))
	f.Fuzz(func(t *testing.T, method, path, headers string, body []byte) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			u = &url.URL{Path: path}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // of those that wait
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", bytes.NewReader(body))
		r.Method, r.URL = method, u
		for line := range strings.SplitSeq(headers, "\n") {
			if name, value, ok := strings.Cut(line, ":"); ok && name != "" {
				r.Header.Add(name, strings.TrimSpace(value))
			}
		}
		recorded := httptest.NewRecorder()
		whole := servedWhole(w.server.Handler(), recorded, r)
		if !whole && ctx.Err() == nil {
			t.Errorf("%q %q is broken off", method, path)
		}
		a := &answer{Response: recorded.Result(), body: recorded.Body.Bytes()}
		if ctx.Err() != nil || a.Header.Get("Content-Type") == eventStream {
			return // it was given up, or would have gone on
		}
		if a.StatusCode > 500 && a.StatusCode != http.StatusServiceUnavailable || a.StatusCode == http.StatusInternalServerError ||
			a.StatusCode >= 300 && a.StatusCode < 400 && a.StatusCode != http.StatusNotModified {
			t.Errorf("%q %q: %d %s", method, path, a.StatusCode, a.body)
		}
		if a.StatusCode >= 400 && (a.Header.Get("Content-Type") != "application/problem+json" || !json.Valid(a.body)) {
			t.Errorf("%q %q: no problem document: %d %s", method, path, a.StatusCode, a.body)
		}
		if a.Header.Get("Content-Encoding") == "gzip" {
			a.body = []byte(a.unpack(t))
		}
		if err := w.described(r, a); err != nil {
			t.Errorf("%q %q answers what the document does not say: %v\n%d %s", method, path, err, a.StatusCode, a.body)
		}
	})
}

// servedWhole reports whether a request is answered, and not broken off.
func servedWhole(handler http.Handler, w http.ResponseWriter, r *http.Request) (whole bool) {
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler { //nolint:errorlint // the very value that net/http knows
			panic(v)
		}
	}()
	handler.ServeHTTP(w, r)
	return true
}

// described holds an answer against the document where that has an operation for the
// request, and the request came to a path of ours: the document's router is laxer.
func (w *world) described(r *http.Request, a *answer) error {
	if r.Method != http.MethodGet && r.Method != http.MethodPost || r.Pattern == "" || r.Pattern == "/" {
		return nil
	}
	route, params, err := w.router.FindRoute(r)
	if err != nil {
		return nil //nolint:nilerr // it has none
	}
	return validate(r.Context(), &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route}, a)
}

// FuzzEvents throws bodies at /events. Whatever is accepted must be an event that
// the other end reads back, and must claim nothing that is the worker's own.
func FuzzEvents(f *testing.F) {
	f.Add(structured, []byte(cloud("run.started", `,"subject":"r","data":{"a":[1]}`)))
	f.Add(batch, []byte("["+cloud("ai.forget", `,"data_base64":"MQ=="`)+",7]"))
	f.Add("", []byte(`{"type":"books.changed","subject":"u","view":"user_books"}`))
	f.Add("application/json", []byte(`[{"type":"run.progress","subject":"r","time":"2026-01-02T03:04:05Z"}]`))
	f.Fuzz(func(t *testing.T, media string, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/events", bytes.NewReader(body))
		r.Header["Content-Type"] = []string{media}
		x := &exchange{ResponseWriter: httptest.NewRecorder(), request: r}
		items, err := readEvents(x)
		var p *Problem
		if err != nil && !errors.As(err, &p) {
			t.Fatalf("not a problem: %v", err)
		}
		for _, item := range items {
			e, err := item.event()
			if err != nil || e.Validate() != nil {
				continue
			}
			if e.ID == "" && !item.lenient || e.Source == "" || e.Time.IsZero() || e.View != "" || e.Version != "" {
				t.Errorf("accepted %+v", e)
			}
			fields := e.Fields()
			back, err := event.Parse(func(name string) string {
				for i := 0; i < len(fields); i += 2 {
					if fields[i] == name {
						return fields[i+1]
					}
				}
				return ""
			})
			if err != nil || back.Type != e.Type || back.Subject != e.Subject || !back.Time.Equal(e.Time) {
				t.Errorf("%+v is read back as %+v, %v", e, back, err)
			}
		}
	})
}

// FuzzNesting holds nesting against what encoding/json finds in valid texts.
func FuzzNesting(f *testing.F) {
	f.Add([]byte(`{"a":["\\\"[",{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			nesting(text) // must not panic
			return
		}
		depth, deepest := 0, 0
		d := json.NewDecoder(bytes.NewReader(text))
		for {
			token, err := d.Token()
			if err != nil {
				break
			}
			switch token {
			case json.Delim('{'), json.Delim('['):
				depth++
				deepest = max(deepest, depth)
			case json.Delim('}'), json.Delim(']'):
				depth--
			}
		}
		if got := nesting(text); got != deepest {
			t.Errorf("%q: %d, want %d", text, got, deepest)
		}
	})
}
