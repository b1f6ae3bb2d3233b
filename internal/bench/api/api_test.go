package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/bench/process"
	"mythiccache/internal/testserver"
)

// A server that stands still keeps no request from being due: those that would have
// been sent meanwhile count as late as they are, not as those after it.
func TestWhatAServerHoldsUpIsLate(t *testing.T) {
	t.Parallel()
	const held = 300 * time.Millisecond
	took := pace{rate: 1000, lasts: 600 * time.Millisecond}.keep(t.Context(), 2, func(_, n int) {
		if n == 100 || n == 101 {
			time.Sleep(held) // both connections wait for the server
		}
	})
	if len(took) != 600 {
		t.Fatalf("%d requests; want 600", len(took))
	}
	// 300 were due while nobody could send them, and waited for half of that on average.
	if late := gauge.Quantile(took, .75); late < held/4 {
		t.Errorf("a quarter took longer than %s; that hides what was held up", late)
	}
	if longest := gauge.Quantile(took, 1); longest < held {
		t.Errorf("the longest took %s", longest)
	}
}

func TestALoadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	took := pace{rate: 10_000}.keep(ctx, 2, func(_, n int) {
		if n == 50 {
			cancel()
		}
	})
	if len(took) < 51 {
		t.Errorf("%d requests were done", len(took))
	}
}

// A wire reads as much as an answer has, and begins anew after what it does not
// understand.
func TestAWireReadsAnswersOneAfterTheOther(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/document":
			w.Header().Set("X-Cache", "STALE")
			w.Header().Set("Content-Length", "50005")
			fmt.Fprint(w, r.Header.Get("Authorization"), strings.Repeat(" long", 10_000))
		case "/chunks":
			fmt.Fprint(w, strings.Repeat(" long", 10_000))
		case "/same":
			w.Header().Set("Content-Length", "7") // of what is not sent
			w.WriteHeader(http.StatusNotModified)
		case "/broken":
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				conn.Close()
			}
		default:
			http.Error(w, "no", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	w := &wire{address: address}
	t.Cleanup(w.close)
	for _, c := range []struct {
		path, mark, begins string
		status, size       int
	}{
		{path: "/document", status: 200, mark: "STALE", begins: "token long", size: 50_005},
		{path: "/same", status: 304},
		{path: "/other", status: 503, begins: "no\n", size: 3},
		{path: "/broken"},
		{path: "/chunks"},
		{path: "/document", status: 200, mark: "STALE", begins: "token long", size: 50_005},
	} {
		a, err := w.ask(t.Context(), question(address, c.path, http.Header{"Authorization": {"token"}}))
		if (err != nil) != (c.status == 0) || a.status != c.status || a.mark != c.mark || len(a.body) != c.size || !strings.HasPrefix(string(a.body), c.begins) {
			t.Errorf("%s: %d %q %d bytes, %v", c.path, a.status, a.mark, len(a.body), err)
		}
	}
}

// Both baselines send what we sent, to the letter.
func TestBaselinesSendTheSample(t *testing.T) {
	t.Parallel()
	b := &bed{Deployment: &process.Deployment{Redis: testserver.NewRedis(t)}, dir: t.TempDir()}
	sent := reply{http.StatusOK, http.Header{"Etag": {`"x"`}, "Age": {"3"}, "Content-Type": {"application/json"}, "Date": {"then"}}, []byte(`{"runId":"bench"}`)}
	file, err := b.leave(t.Context(), sent)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s sample
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	client := b.Redis.Client(t)
	for name, server := range map[string]*bare{"memory": {sample: s, kept: []byte(s.Body)}, "redis": {sample: s, redis: client}} {
		w := httptest.NewRecorder()
		server.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
		if names := slices.Sorted(maps.Keys(w.Header())); !slices.Equal(names, []string{"Age", "Content-Type", "Etag"}) || w.Body.String() != string(sent.body) {
			t.Errorf("from %s came %v %q", name, names, w.Body)
		}
	}
}

// A load that is answered otherwise than it should be is no measurement.
func TestALoadRefusesAWrongAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/")); err == nil {
			w.WriteHeader(status)
		}
	}))
	t.Cleanup(server.Close)
	for status, good := range map[int]bool{200: true, 503: false} {
		text, err := json.Marshal(order{Address: server.Listener.Addr().String(), Path: fmt.Sprintf("/%d", status), Status: http.StatusOK, Rate: 1000, Lasts: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		err = Load(t.Context(), strings.NewReader(string(text)), &out)
		var d delays
		if good && (err != nil || json.Unmarshal([]byte(out.String()), &d) != nil || d.P50 <= 0 || d.P50 > d.P99 || d.P99 > d.Max) {
			t.Errorf("%v %s", err, out.String())
		}
		if !good && (err == nil || !strings.Contains(err.Error(), "503")) {
			t.Errorf("answers of %d gave %v", status, err)
		}
	}
}

// What comes after Redis is back, and only that, says when all was fresh.
func TestAnOutageIsOverWithTheLastOldAnswer(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	says := make(chan answer, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a := <-says
		w.Header().Set("X-Cache", a.mark)
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	address := listener.Addr().String()
	w := &wire{address: address}
	t.Cleanup(w.close)
	o := &outage{message: "new", begun: time.Now().Add(-time.Hour), questions: []asked{{path: "/", question: question(address, "/", nil), changed: true}}}
	ask := func(since time.Duration, status int, mark, body string) []gauge.Line {
		says <- answer{status, mark, []byte(body)}
		o.begun = time.Now().Add(-time.Hour - since)
		o.ask(t.Context(), w, 0)
		return o.lines("frozen")
	}

	ask(0, http.StatusOK, "STALE", "old")
	o.returned.Store(int64(time.Hour + time.Minute))
	if lines := o.lines("frozen"); lines[1].Measured != "0.00 s" || !lines[0].Reached {
		t.Errorf("before it was back: %+v", lines)
	}
	ask(time.Minute+time.Second, http.StatusOK, "STALE", "old")
	ask(time.Minute+3*time.Second, http.StatusOK, "HIT", "old")
	lines := ask(time.Minute+5*time.Second, http.StatusOK, "HIT", "new")
	if measured := lines[1].Measured; measured[:3] != "3.0" || lines[1].Reached || !lines[0].Reached {
		t.Errorf("it was fresh after %s: %+v", measured, lines)
	}
	lines = ask(time.Minute+6*time.Second, http.StatusOK, "STALE", "new")
	if measured := lines[1].Measured; measured[:3] != "6.0" || !lines[0].Reached {
		t.Errorf("it was fresh after %s: %+v", measured, lines)
	}
	lines = ask(time.Minute+7*time.Second, http.StatusServiceUnavailable, "", "")
	if lines[0].Measured != "1" || lines[0].Reached || len(lines[0].Notes) != 2 {
		t.Errorf("after an error: %+v", lines[0])
	}
}

func TestBucketsAreRead(t *testing.T) {
	t.Parallel()
	const text = "# TYPE some_seconds histogram\nsome_seconds_bucket{le=\"0.001\"} 90\nsome_seconds_bucket{le=\"0.05\"} 99\n" +
		"some_seconds_bucket{le=\"+Inf\"} 100\nsome_seconds_sum 1\n"
	b, err := readBuckets(text, "some_seconds_bucket")
	if err != nil {
		t.Fatal(err)
	}
	if b.quantity() != 100 || b.quantile(.5) != .001 || b.quantile(.99) != .05 || b.quantile(1) < 1 {
		t.Errorf("%v: %g, %g, %g", b, b.quantile(.5), b.quantile(.99), b.quantile(1))
	}
	if _, err := readBuckets(text, "others_bucket"); err == nil {
		t.Error("found what is not there")
	}
}
