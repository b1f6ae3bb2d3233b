package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"mythiccache/api/lane"
	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// talker asks one thing after the other on one connection.
type talker struct {
	w  *world
	in *bufio.Reader
	io.Writer
}

func (w *world) talk(address string) *talker {
	w.t.Helper()
	conn := w.dial(strings.TrimPrefix(address, "http://"))
	return &talker{w: w, in: bufio.NewReader(conn), Writer: conn}
}

// get sends a GET of a form that the lane understands, and checks the answer against
// the document.
func (c *talker) get(path string, headers ...string) *answer {
	c.w.t.Helper()
	r, a := c.send(path, headers...)
	if a.Header.Get("Content-Encoding") == "" { // the document speaks of what is inside
		c.w.check(r, a)
	}
	return a
}

func (c *talker) send(path string, headers ...string) (*http.Request, *answer) {
	c.w.t.Helper()
	r := c.ask(path, headers...)
	response, err := http.ReadResponse(c.in, r)
	if err != nil {
		c.w.t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.w.t.Fatal(err)
	}
	return r, &answer{Response: response, body: body}
}

// ask sends the request alone.
func (c *talker) ask(path string, headers ...string) *http.Request {
	c.w.t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	lines := []string{"GET " + path + " HTTP/1.1", "Host: x"}
	for i := 0; i < len(headers); i += 2 {
		lines = append(lines, headers[i]+": "+headers[i+1])
		r.Header.Add(headers[i], headers[i+1])
	}
	if _, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		c.w.t.Fatal(err)
	}
	return r
}

// What is another one each time, and what stands in its place.
var fleeting = map[string]*regexp.Regexp{
	"Date": regexp.MustCompile(`.+`), "Server-Timing": regexp.MustCompile(`[0-9.]+`), "X-Process-Time": regexp.MustCompile(`[0-9.]+`), "Age": regexp.MustCompile(`\d+`),
	"Ratelimit": regexp.MustCompile(`[rt]=\d+`), "Cache-Status": regexp.MustCompile(`ttl=\d+`),
}

// lasting is an answer without what is another one each time.
func (a *answer) lasting() string {
	h := a.Header.Clone()
	for name, pattern := range fleeting {
		for i, value := range h[name] {
			h[name][i] = pattern.ReplaceAllString(value, "*")
		}
	}
	return fmt.Sprintf("%d %v %d %v %t %s", a.StatusCode, a.Status, a.ContentLength, h, a.Close, a.body)
}

// TestTheLaneAnswersAsNetHTTPDoes asks a server with a lane and the same one without
// for everything that may be in memory, as everybody.
func TestTheLaneAnswersAsNetHTTPDoes(t *testing.T) {
	for _, origins := range []string{"", "https://app.example.com"} {
		w := begin(t, nearBy(t), func(o *Options) { o.Limits, o.Origins = "default=10000000/1m", origins })
		w.hears()
		bare := httptest.NewServer(w.server.Handler())
		t.Cleanup(bare.Close)
		anybodys := w.put("run_status", "RUN1", fill(t, status("RUN1")))
		owned := fill(t, status("RUN2"))
		owned.Owned, owned.Owner = true, "user_1"
		w.put("run_status", "RUN2", owned)
		w.put("run_status", "LONG", fill(t, strings.Replace(status("LONG"), `"message":""`, `"message":"`+strings.Repeat("long ", 5000)+`"`, 1)))
		nothing := fill(t, "")
		nothing.Negative, nothing.Body = true, nil
		w.put("run_status", "NONE", nothing)
		mine := w.put("user_books", "user_1", fill(t, books("user_1")))
		w.put("user_books", "user_2", nothing)
		user1, user2 := token(t, "user_1"), token(t, "user_2")
		old := token(t, "user_1", func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Hour).Unix() })
		fast, slow := w.talk(w.url), w.talk(bare.URL)
		before := w.server.lane.Answered()
		asked, near := 0, 0
		for _, path := range []string{"/status/RUN1", "/status/RUN2", "/status/LONG", "/status/NONE", "/books/my", "/livez", "/nowhere", "/status/./RUN1"} {
			for _, who := range [][]string{
				{}, {"Authorization", user1}, {"Authorization", user2}, {"Authorization", old}, {"Authorization", "Basic eDp5"},
				{"Authorization", "Bearer " + eventsToken, "X-User-Id", "user_1"}, {"X-User-Id", "user_1"},
			} {
				for _, more := range [][]string{
					{}, {"If-None-Match", anybodys.ETag}, {"If-None-Match", "W/" + mine.ETag}, {"If-None-Match", `"other"`}, {"Accept-Encoding", "gzip"},
					{"Accept", "*/*", "Accept-Encoding", "gzip, deflate", "User-Agent", "x", "Connection", "keep-alive"},
				} {
					headers := append(append([]string{}, who...), more...)
					_, theirs := slow.send(path, headers...)
					ours := fast.get(path, headers...)
					asked++
					if strings.Contains(theirs.Header.Get("Cache-Status"), "near") {
						near++
					}
					if a, b := ours.lasting(), theirs.lasting(); a != b && !settling(ours, theirs) {
						t.Fatalf("%s %q:\n%s\n\nand without the lane:\n%s", path, headers, a, b)
					}
				}
			}
		}
		answered := int(w.server.lane.Answered() - before)
		t.Logf("%d asked, %d known to be near, %d answered by the lane", asked, near, answered)
		if answered < near/2 || answered == 0 {
			t.Errorf("of %d requests the lane answered %d", asked, answered)
		}
		if said := string(w.get("/metrics").body); !regexp.MustCompile(`\nmythic_cache_api_lane_total [1-9]`).MatchString(said) {
			t.Error("the metric does not say so")
		}
	}
}

// settling reports whether two answers differ in whether the entry was in memory yet.
func settling(a, b *answer) bool {
	x, y := a.Header.Get("Cache-Status"), b.Header.Get("Cache-Status")
	if x == y {
		return false
	}
	a.Header.Set("Cache-Status", strings.TrimSuffix(x, "; detail=near"))
	b.Header.Set("Cache-Status", strings.TrimSuffix(y, "; detail=near"))
	for _, h := range []http.Header{a.Header, b.Header} {
		h.Set("Server-Timing", "")
	}
	return a.lasting() == b.lasting()
}

// byLane asks until the lane is what answers, and returns that answer.
func (c *talker) byLane(path string, headers ...string) *answer {
	c.w.t.Helper()
	var a *answer
	testserver.Eventually(c.w.t, "an answer by the lane", func() error {
		before := c.w.server.lane.Answered()
		if a = c.get(path, headers...); c.w.server.lane.Answered() == before {
			return errors.New(a.lasting())
		}
		return nil
	})
	return a
}

// TestARevokedTokenIsOutOfTheLane at once.
func TestARevokedTokenIsOutOfTheLane(t *testing.T) {
	w := begin(t, nearBy(t))
	w.hears()
	w.put("user_books", "user_1", fill(t, books("user_1")))
	shown := token(t, "user_1")
	c := w.talk(w.url)
	c.byLane("/books/my", "Authorization", shown).wants(t, 200, map[string]string{"Cache-Status": ".*near"})
	w.revoke(cache.RevokedToken(cache.HashToken(raw(shown))), time.Now())
	testserver.Eventually(t, "the token is refused", func() error {
		if a := c.get("/books/my", "Authorization", shown); a.StatusCode != http.StatusUnauthorized {
			return errors.New(a.Status)
		}
		return nil
	})
}

// TestAChangeReachesTheLane changes an entry that the lane has been answering with.
func TestAChangeReachesTheLane(t *testing.T) {
	w := begin(t, nearBy(t))
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	c := w.talk(w.url)
	c.byLane("/status/RUN1")
	changed := strings.Replace(status("RUN1"), "scraping", "printing", 1)
	w.put("run_status", "RUN1", later(t, changed))
	testserver.Eventually(t, "the new state", func() error {
		if a := c.get("/status/RUN1"); string(a.body) != changed {
			return errors.New(string(a.body))
		}
		return nil
	})
	if a := c.byLane("/status/RUN1"); string(a.body) != changed {
		t.Errorf("%s", a.body)
	}
}

// TestNeverOneAdmittedTooManyByTheLane counts those that it answers, too.
func TestNeverOneAdmittedTooManyByTheLane(t *testing.T) {
	const most = 400
	w := begin(t, nearBy(t), func(o *Options) { o.Limits = fmt.Sprintf("default=%d/1h", most) })
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	var admitted atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		c := w.talk(w.url)
		group.Go(func() {
			r := httptest.NewRequest(http.MethodGet, "/status/RUN1", http.NoBody)
			for range most / 4 {
				io.WriteString(c, "GET /status/RUN1 HTTP/1.1\r\nHost: x\r\n\r\n")
				response, err := http.ReadResponse(c.in, r)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, response.Body); err != nil {
					t.Error(err)
				}
				if response.StatusCode == http.StatusOK {
					admitted.Add(1)
				}
			}
		})
	}
	group.Wait()
	// What was taken ahead and not used is over, so it may be fewer.
	if n := admitted.Load(); n > most || n < most/4 || w.server.lane.Answered() == 0 {
		t.Errorf("%d were admitted, %d answered by the lane", n, w.server.lane.Answered())
	}
}

// TestStreamsAndPollsAreNotTheLanes: they wait, and the lane must not.
func TestStreamsAndPollsAreNotTheLanes(t *testing.T) {
	w := begin(t, nearBy(t))
	e := w.put("run_status", "RUN1", fill(t, status("RUN1")))
	c := w.talk(w.url)
	c.byLane("/status/RUN1")
	before := w.server.lane.Answered()
	if a := c.get("/status/RUN1", "Prefer", "wait=1", "If-None-Match", e.ETag); a.StatusCode != http.StatusNotModified || a.Header.Get("Preference-Applied") == "" {
		t.Errorf("%s %v", a.Status, a.Header)
	}
	io.WriteString(c, "GET /status/RUN1 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
	response, err := http.ReadResponse(c.in, httptest.NewRequest(http.MethodGet, "/status/RUN1", http.NoBody))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.Header.Get("Content-Type") != "text/event-stream" || w.server.lane.Answered() != before {
		t.Errorf("%v, %d by the lane", response.Header, w.server.lane.Answered()-before)
	}
	events := bufio.NewReader(response.Body)
	for said := ""; !strings.HasPrefix(said, "data:"); {
		if said, err = events.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	// Had the lane begun it, there would be two, of which one has ended.
	if said := string(w.get("/metrics").body); regexp.MustCompile(`\nmythic_cache_http_watch_ended_total\{.*\} [1-9]`).MatchString(said) {
		t.Error("a stream was begun twice")
	}
}

// TestTheLaneDoesNotWait freezes Redis and asks for what cannot be had without it, or
// has not been had yet. The lane passes it on at once.
func TestTheLaneDoesNotWait(t *testing.T) {
	w := begin(t, nearBy(t), func(o *Options) { o.Limits = "default=20/1h" })
	w.hears()
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	w.settle("/status/RUN1")
	var longest atomic.Int64
	passed := make(chan string, 10)
	watched := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		if !lane.In(r.Context()) && r.URL.Path != "/livez" {
			passed <- r.URL.Path
		}
		w.server.Handler().ServeHTTP(rw, r)
		if took := int64(time.Since(begun)); lane.In(r.Context()) && took > longest.Load() {
			longest.Store(took)
		}
	})
	fast := lane.New(watched)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: watched, ConnState: fast.ConnState, ReadHeaderTimeout: time.Minute}
	go server.Serve(fast.Listen(l, time.Minute))
	defer server.Close()
	if err := w.redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer w.redis.Thaw()
	for _, one := range [][]string{
		{"/books/my", "Authorization", token(t, "user_9")}, // who is not known
		{"/status/RUN2"}, // what is not known
		{"/status/RUN1", "X-User-Id", "user_1", "Authorization", "Bearer " + eventsToken}, // whose limit is not known
		{"/health/redis"},
		{"/cache/stats"},
	} {
		c := w.talk(l.Addr().String())
		c.get("/livez")
		c.ask(one[0], one[1:]...)
		select {
		case <-passed:
		case <-time.After(time.Minute):
			t.Fatalf("%s is not passed on", one[0])
		}
	}
	// It is microseconds, and whatever the machine is busy with.
	if took := time.Duration(longest.Load()); took > 200*time.Millisecond {
		t.Errorf("something took %s in the lane", took)
	}
	if fast.Answered() != 0 {
		t.Errorf("the lane answered %d", fast.Answered())
	}
}

// TestWhatTheLanePassesOnCountsOnce asks what it can answer and what it cannot.
func TestWhatTheLanePassesOnCountsOnce(t *testing.T) {
	w := begin(t, nearBy(t))
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	c := w.talk(w.url)
	c.byLane("/status/RUN1")
	count := func(route string) (n float64) {
		for line := range strings.SplitSeq(string(w.get("/metrics").body), "\n") {
			if rest, ok := strings.CutPrefix(line, `mythic_cache_http_requests_total{route="`+route+`",`); ok {
				_, value, _ := strings.Cut(rest, "} ")
				one, err := strconv.ParseFloat(value, 64)
				if err != nil {
					t.Fatal(err)
				}
				n += one
			}
		}
		return n
	}
	statuses, lives := count("/status/{run_id}"), count("/livez")
	for range 10 {
		c.get("/status/RUN1")
		c.get("/status/RUN1", "Authorization", token(t, "user_1"), "X-Request-Id", "1") // whom it does not know at first
		c.get("/livez")
	}
	if n := count("/status/{run_id}") - statuses; n != 20 {
		t.Errorf("%g requests for the status were counted", n)
	}
	if n := count("/livez") - lives; n != 10 {
		t.Errorf("%g requests for /livez were counted", n)
	}
}

// TestTheEndWaitsForTheLane stops the server while somebody reads slowly.
func TestTheEndWaitsForTheLane(t *testing.T) {
	w := begin(t, func(o *Options) { o.Reader = (&world{t: t, store: o.Store, views: o.Views}).reader(1 << 30) })
	long := strings.Replace(status("RUN1"), `"message":""`, `"message":"`+strings.Repeat("long ", 4<<20)+`"`, 1)
	w.put("run_status", "RUN1", fill(t, long))
	testserver.Eventually(t, "it is in memory", func() error {
		if _, a := w.talk(w.url).send("/status/RUN1"); !strings.HasSuffix(a.Header.Get("Cache-Status"), "near") {
			return errors.New(a.Header.Get("Cache-Status"))
		}
		return nil
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(ctx, l) }()
	c := w.talk(l.Addr().String())
	c.get("/livez")
	if _, err := io.WriteString(c, "GET /status/RUN1 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	select {
	case err := <-served:
		t.Fatalf("it has not waited: %v", err)
	case <-time.After(300 * time.Millisecond): // it goes on waiting
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != long {
		t.Errorf("%d of %d bytes, %v", len(body), len(long), err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestNoAnswerIsCutOffAtTheEnd stops the server under load: whoever gets an answer gets
// all of it.
func TestNoAnswerIsCutOffAtTheEnd(t *testing.T) {
	w := begin(t, nearBy(t))
	long := strings.Replace(status("RUN1"), `"message":""`, `"message":"`+strings.Repeat("long ", 5000)+`"`, 1)
	w.put("run_status", "RUN1", fill(t, long))
	w.settle("/status/RUN1")
	for range 5 {
		w.stopUnderLoad("/status/RUN1", long)
	}
}

// stopUnderLoad serves, and stops after some answers. Each that comes must be a body
// as it should be, whole.
func (w *world) stopUnderLoad(path, body string) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(w.t.Context())
	defer stop()
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(ctx, l) }()
	const enough = 500
	var group sync.WaitGroup
	got, before := make(chan struct{}, enough), w.server.lane.Answered()
	for range 16 {
		c := w.talk(l.Addr().String())
		group.Go(func() { w.load(c, path, body, got) })
	}
	for range enough {
		<-got
	}
	stop()
	if err := <-served; err != nil {
		w.t.Error(err)
	}
	group.Wait()
	if w.server.lane.Answered() == before {
		w.t.Error("the lane has answered nothing")
	}
}

// load asks until the connection ends.
func (w *world) load(c *talker, path, body string, got chan<- struct{}) {
	for {
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return
		}
		if _, err := c.in.Peek(1); err != nil {
			return // nothing has come
		}
		response, err := http.ReadResponse(c.in, nil)
		if err != nil {
			w.t.Error(err)
			return
		}
		if said, err := io.ReadAll(response.Body); err != nil || string(said) != body {
			w.t.Errorf("%d of %d bytes, %v", len(said), len(body), err)
			return
		}
		select {
		case got <- struct{}{}:
		default:
		}
	}
}
