package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"mythiccache/producers/event"
)

// FuzzPathAndHeaders throws requests at the whole handler, with a Redis that is
// there and empty. None may panic, none may be a 500, and every error is a
// problem document.
func FuzzPathAndHeaders(f *testing.F) {
	for _, seed := range [][]string{
		{"GET", "/status/RUN1", "Bearer x.y.z", "user", "7-9", `"a", W/"b"`},
		{"HEAD", "/books/my", "", "", "", "*"},
		{"GET", "/status/%2e%2e%2f%00", "Basic", "\x00", "-", ""},
		{"POST", "/events", "Bearer " + eventsToken, "", "", ""},
		{"CONNECT", "", "", "", "", ""},
		{"GET", "//x/../y", "Bearer", "", "18446744073709551616", ","},
		{"OPTIONS", "*", "", "", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4], seed[5])
	}
	w := begin(f, func(o *Options) { o.MissWait = 1; o.Limits = "default=5/1h" })
	f.Fuzz(func(t *testing.T, method, path, authorization, user, minXid, match string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			u = &url.URL{Path: path}
		}
		r := httptest.NewRequest(http.MethodGet, "/", strings.NewReader(`{"type":"run.started"}`))
		r.Method, r.URL = method, u
		for name, value := range map[string]string{"Authorization": authorization, "X-User-Id": user, "X-Min-Xid": minXid, "If-None-Match": match} {
			if value != "" {
				r.Header[name] = []string{value}
			}
		}
		recorded := httptest.NewRecorder()
		w.server.Handler().ServeHTTP(recorded, r)
		body, _ := io.ReadAll(recorded.Body)
		if recorded.Code == http.StatusInternalServerError || recorded.Code >= 300 && recorded.Code < 400 && recorded.Code != http.StatusNotModified {
			t.Errorf("%q %q: %d %s", method, path, recorded.Code, body)
		}
		if recorded.Code >= 400 && (recorded.Header().Get("Content-Type") != "application/problem+json" || !json.Valid(body)) {
			t.Errorf("%q %q: no problem document: %d %s", method, path, recorded.Code, body)
		}
	})
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
