package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
)

func TestWhatNoRouteIsFor(t *testing.T) {
	w := begin(t)
	for _, path := range []string{
		"/", "/nothing", "/status", "/status/", "/status/a/b", "/books/my/", "//books/my", "/books/../livez", "/status/./x", "/livez/", "/%00",
	} {
		r, _ := http.NewRequest(http.MethodGet, w.url, http.NoBody)
		r.URL.Opaque = path // as it is, without being cleaned
		a, err := send(r)
		if err != nil {
			t.Fatal(err)
		}
		a.wants(t, 404, map[string]string{"Content-Type": "application/problem\\+json", "Location": ""})
	}
	for path, allow := range map[string]string{"/status/RUN1": "GET, HEAD, OPTIONS", "/events": "OPTIONS, POST", "/livez": "GET, HEAD, OPTIONS"} {
		for _, method := range []string{http.MethodDelete, http.MethodTrace, http.MethodPatch} {
			w.do(method, path, "").wants(t, 405, map[string]string{"Allow": allow, "Content-Type": "application/problem\\+json"})
		}
	}
}

func TestKeysComeFromThePathAsTheyAre(t *testing.T) {
	w := begin(t)
	for path, key := range map[string]string{
		"/status/a%2Fb": "a/b", "/status/%2e%2e": "..", "/status/%7Bx%7D": "{x}", "/status/a%20b%3A%25": "a b:%", "/status/%C3%A9": "é",
	} {
		w.put("run_status", key, fill(t, status(key)))
		a := w.get(path)
		a.wants(t, 200, nil)
		if string(a.body) != status(key) {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	for _, path := range []string{"/status/%00", "/status/%FF", "/status/" + strings.Repeat("x", event.MaxName+1)} {
		w.get(path).wants(t, 400, nil)
	}
}

func TestAPanicStaysInside(t *testing.T) {
	var logged testserver.Log
	w := begin(t, func(o *Options) { o.Log = zerolog.New(&logged) })
	recorded := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/livez", http.NoBody)
	w.server.serve(recorded, r, w.server.other, func(*exchange) error { panic("secret") })
	if recorded.Code != 500 || strings.Contains(recorded.Body.String(), "secret") || !strings.Contains(logged.String(), "secret") {
		t.Errorf("%d %s", recorded.Code, recorded.Body)
	}
	recorded = httptest.NewRecorder()
	w.server.serve(recorded, r, w.server.other, func(*exchange) error { return errors.New("secret") })
	if recorded.Code != 500 || strings.Contains(recorded.Body.String(), "secret") {
		t.Errorf("%d %s", recorded.Code, recorded.Body)
	}
	w.check(r, &answer{Response: recorded.Result(), body: recorded.Body.Bytes()})
}

// TestAPanicInTheMidstOfAnAnswerBreaksItOff: by ending as usual, the part that has been
// sent would look like all of it.
func TestAPanicInTheMidstOfAnAnswerBreaksItOff(t *testing.T) {
	w := begin(t)
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.server.serve(rw, r, w.server.other, func(x *exchange) error {
			_, _ = x.Write([]byte("[1,"))
			if err := http.NewResponseController(x).Flush(); err != nil {
				t.Error(err)
			}
			panic("secret")
		})
	}))
	defer front.Close()
	r, _ := http.NewRequest(http.MethodGet, front.URL, http.NoBody)
	if a, err := send(r); err == nil || a == nil || string(a.body) != "[1," {
		t.Errorf("%v %v", a, err)
	}
}

// TestServeFinishesWhatIsInFlight ends the context while a request waits for a
// fill, which then comes.
func TestServeFinishesWhatIsInFlight(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = time.Minute })
	release := make(chan struct{})
	w.worker(func(e event.Event) {
		<-release
		w.put(e.View, e.Subject, fill(t, status(e.Subject)))
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(ctx, l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /status/RUN1 HTTP/1.1\r\nHost: x\r\n\r\n")
	for w.server.misses.count() == 0 {
		if len(served) > 0 {
			t.Fatal(<-served)
		}
	}
	cancel()
	close(release)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", response, err)
	}
	response.Body.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	w := begin(t)
	for sentence, change := range map[string]func(*Options){
		"are needed":        func(o *Options) { o.Store = nil },
		"may be negative":   func(o *Options) { o.MissWait = -1 },
		"RATE_LIMITS":       func(o *Options) { o.Limits = "x" },
		"duplicate metrics": func(o *Options) { o.Registry = w.server.o.Registry },
	} {
		o := w.server.o
		o.Registry = nil
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), sentence) {
			t.Errorf("%s: %v", sentence, err)
		}
	}
}

func TestRoutesThatExcludeOneAnother(t *testing.T) {
	s := begin(t).server
	get := func(path string) route { return route{method: http.MethodGet, path: path} }
	if _, err := s.bind([]route{get("/a"), get("/a")}); err == nil || !strings.Contains(err.Error(), "GET /a is served twice") {
		t.Errorf("twice: %v", err)
	}
	endpoints, err := s.bind([]route{get("/a/{x}"), get("/{y}/b")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.mux(endpoints); err == nil || !strings.Contains(err.Error(), "cannot be served") {
		t.Errorf("a clash: %v", err)
	}
}

func TestTheDocumentNamesEveryRoute(t *testing.T) {
	w := begin(t)
	var document struct {
		OpenAPI   string
		Info      struct{ Version string }
		Paths     map[string]map[string]struct{ OperationID, Summary string }
		XProblems []struct {
			Kind, Title, Text string
			Status            int
		} `json:"x-problems"`
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Enum []string }
			}
		}
	}
	a := w.get("/openapi.json")
	a.wants(t, 200, map[string]string{"Content-Type": "application/json"})
	if err := json.Unmarshal(a.body, &document); err != nil {
		t.Fatal(err)
	}
	if document.OpenAPI != "3.1.0" || document.Info.Version != "1.2.3" {
		t.Errorf("%s %s", document.OpenAPI, document.Info.Version)
	}
	ids := map[string]bool{}
	for _, r := range w.server.routes() {
		o, ok := document.Paths[r.path][strings.ToLower(r.method)]
		if !ok || o.OperationID == "" || o.Summary == "" || ids[o.OperationID] {
			t.Errorf("%s %s: %+v", r.method, r.path, o)
		}
		ids[o.OperationID] = true
	}
	for _, path := range []string{"/status/{run_id}", "/books/my", "/events", "/health/redis", "/cache/stats", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs"} {
		if document.Paths[path] == nil {
			t.Errorf("no %s", path)
		}
	}
	var types []string
	for _, p := range document.XProblems {
		types = append(types, "/docs#"+p.Kind)
		if status, title := kind(p.Kind).about(); p.Status != status || p.Title != title || p.Text == "" || status == 500 && p.Kind != "internal" {
			t.Errorf("problem %+v", p)
		}
	}
	if got := document.Components.Schemas["Problem"].Properties["type"].Enum; fmt.Sprint(got) != fmt.Sprint(types) {
		t.Errorf("types of problems: %v, explained: %v", got, types)
	}
	if !strings.Contains(string(a.body), `#/components/schemas/Books"`) || !strings.Contains(string(a.body), `#/components/schemas/Status"`) {
		t.Error("the built-in views have no schema")
	}
}

func TestThePageLoadsNothingFromElsewhere(t *testing.T) {
	w := begin(t)
	a := w.get("/docs")
	a.wants(t, 200, map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Content-Security-Policy": `default-src 'none'; connect-src 'self';.*script-src 'sha256-[^']+'`,
	})
	for _, word := range []string{"http://", "https://", "@import", "src=", "innerHTML", "/*page"} {
		if bytes.Contains(a.body, []byte(word)) {
			t.Errorf("the page has %s", word)
		}
	}
}
