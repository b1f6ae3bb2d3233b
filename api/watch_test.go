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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/golang-jwt/jwt/v5"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
)

// sent is an event as a client sees it; a comment has nothing but that.
type sent struct {
	id, name, data, retry string
	comment               bool
}

// client watches by server-sent events.
type client struct {
	t        testing.TB
	response *http.Response
	events   chan sent // closed at the end
	cancel   context.CancelFunc
}

// watch opens a stream, which ends with the test at the latest.
func (w *world) watch(path string, headers ...string) *client {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+path, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Accept", eventStream)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &client{t: w.t, response: response, events: make(chan sent, 1000), cancel: cancel}
	openapi3filter.RegisterBodyDecoder(eventStream, openapi3filter.PlainBodyDecoder)
	w.check(r, &answer{Response: response, body: []byte("retry: 1\n\n")})
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != eventStream {
		w.t.Fatalf("%d %v", response.StatusCode, response.Header)
	}
	done := make(chan struct{})
	go func() { defer close(done); c.read() }()
	w.t.Cleanup(func() { cancel(); response.Body.Close(); <-done })
	return c
}

// read takes events apart as an EventSource does.
func (c *client) read() {
	defer close(c.events)
	var e sent
	lines := bufio.NewScanner(c.response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			if e != (sent{}) {
				c.events <- e
			}
			e = sent{}
		case name == "":
			e.comment = true
		case name == "id":
			e.id = value
		case name == "event":
			e.name = value
		case name == "retry":
			e.retry = value
		case name == "data" && e.data != "":
			e.data += "\n" + value
		case name == "data":
			e.data = value
		}
	}
}

// next returns the next event but for comments and times to come back.
func (c *client) next() sent {
	c.t.Helper()
	for {
		select {
		case e, more := <-c.events:
			if !more {
				c.t.Fatal("the stream has ended")
			}
			if e.data != "" {
				return e
			}
		case <-time.After(30 * time.Second):
			c.t.Fatal("no event came")
		}
	}
}

// rest returns all that came until the stream ended.
func (c *client) rest() (all []sent) {
	c.t.Helper()
	for {
		select {
		case e, more := <-c.events:
			if !more {
				return all
			}
			all = append(all, e)
		case <-time.After(30 * time.Second):
			c.t.Fatal("the stream does not end")
		}
	}
}

// told is a document of /status with a message, in a snapshot of its own.
func told(t testing.TB, run, message string, xmax int) cache.Fill {
	t.Helper()
	f := fill(t, strings.Replace(status(run), `"message":""`, fmt.Sprintf(`"message":%q`, message), 1))
	f.Snapshot = at(t, 1, fmt.Sprintf("%d:%d:", xmax, xmax))
	f.Version = f.Snapshot.Version()
	return f
}

// nobodyWatches waits until all watchers have gone, and with them what they held.
func (w *world) nobodyWatches() {
	w.t.Helper()
	h := w.server.watches
	testserver.Eventually(w.t, "nobody watches", func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if n := h.watching + len(h.topics) + len(h.callers) + len(h.unseen); n > 0 || h.looking {
			return fmt.Errorf("%d watchers, %d topics, %d callers, looking: %t", h.watching, len(h.topics), len(h.callers), h.looking)
		}
		return nil
	})
}

// quick makes what happens by time happen soon.
func (w *world) quick(change func(*watchTimes)) { change(&w.server.watches.times) }

func TestAStreamSendsTheStatesOfAnEntry(t *testing.T) {
	w := begin(t, func(o *Options) { o.Limits = "default=100/1m" })
	first := w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	c := w.watch("/status/RUN1")
	(&answer{Response: c.response}).wants(t, 200, map[string]string{
		"Cache-Control": "no-store", "Vary": ".*Authorization.*", "X-Cache": "HIT", "Cache-Status": "mythic-cache; hit.*", "Connection": "", "ETag": "",
		"RateLimit": `"default";r=99;.*`, "X-Content-Type-Options": "nosniff", "Server-Timing": ".+", "Transfer-Encoding": "",
	})
	if e := c.next(); e != (sent{id: first.ETag, name: "status", data: string(first.Body)}) {
		t.Fatalf("first %+v", e)
	}
	for n := range 20 {
		put := w.put("run_status", "RUN1", told(t, "RUN1", fmt.Sprint(n), 101+n))
		if e := c.next(); e != (sent{id: put.ETag, name: "status", data: string(put.Body)}) {
			t.Fatalf("change %d: %+v", n, e)
		}
		w.put("run_status", "RUN1", told(t, "RUN1", fmt.Sprint(n), 101+n)) // the same again
	}
	last := w.put("run_status", "RUN1", told(t, "RUN1", "last", 200))
	if e := c.next(); e.id != last.ETag {
		t.Errorf("an equal document was sent again: %+v", e)
	}
	c.cancel()
	w.nobodyWatches()
}

func TestWhoComesBackGetsWhatIsNew(t *testing.T) {
	w := begin(t)
	e := w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	same := w.watch("/status/RUN1", "Last-Event-ID", e.ETag)
	other := w.watch("/status/RUN1", "Last-Event-ID", `"another"`)
	if got := other.next(); got.id != e.ETag {
		t.Errorf("who has another state gets %+v", got)
	}
	second := w.put("run_status", "RUN1", told(t, "RUN1", "two", 101))
	if got := same.next(); got.id != second.ETag {
		t.Errorf("who has the present state gets %+v first", got)
	}
	if got := other.next(); got.id != second.ETag {
		t.Errorf("then %+v", got)
	}
}

func TestAStreamOfAMissBeginsWithTheFill(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = 10 * time.Second })
	w.worker(func(e event.Event) { w.put(e.View, e.Subject, told(t, e.Subject, "filled", 100)) })
	c := w.watch("/status/RUN1")
	if got := c.next(); !strings.Contains(got.data, "filled") || c.response.Header.Get("X-Cache") != "MISS" {
		t.Errorf("%+v %v", got, c.response.Header)
	}
}

func TestWhatCannotBeWatched(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = 10 * time.Second })
	negative := fill(t, "")
	negative.Negative = true
	w.put("run_status", "NONE", negative)
	owned := told(t, "RUN1", "mine", 100)
	owned.Owned, owned.Owner = true, "user_1"
	w.put("run_status", "RUN1", owned)
	w.put("user_books", "user_1", fill(t, books("user_1")))
	for _, path := range []string{"/status/NONE", "/status/RUN1"} {
		w.get(path, "Accept", eventStream).wants(t, 404, map[string]string{"Content-Type": "application/problem\\+json"})
		w.get(path, "Accept", eventStream, "Authorization", token(t, "user_2")).wants(t, 404, nil)
	}
	w.get("/status/RUN1", "Accept", eventStream, "Authorization", "Bearer x").wants(t, 401, nil)
	w.get("/status/%00", "Accept", eventStream).wants(t, 400, nil)
	w.do(http.MethodHead, "/status/RUN1", "", "Accept", eventStream, "Authorization", token(t, "user_1")).wants(t, 200, map[string]string{"Content-Type": "application/json"})
	// A view that says nothing of watching answers as ever.
	w.get("/books/my", "Accept", eventStream, "Authorization", token(t, "user_1")).wants(t, 200, map[string]string{"Content-Type": "application/json"})
	w.nobodyWatches()
	if c := w.watch("/status/RUN1", "Authorization", token(t, "user_1")); c.next().data != string(owned.Body) {
		t.Error("the owner gets something else")
	}
}

func TestAcceptDecides(t *testing.T) {
	for accept, want := range map[string]bool{
		"text/event-stream": true, "Text/Event-Stream; q=0.5": true, "text/event-stream, */*;q=0.1": true, "text/event-stream,application/json;q=0.9": true,
		"": false, "*/*": false, "application/json": false, "application/json, text/event-stream": false, "text/event-stream;q=0": false, "text/event-stream;q=x": false,
	} {
		if wantsEvents([]string{accept}) != want {
			t.Errorf("%q: %t", accept, !want)
		}
	}
}

func TestAStreamEndsWithWhatItsCallerMayRead(t *testing.T) {
	w := begin(t)
	ends := map[string]func(run string){
		"the run gains another owner": func(run string) {
			f := told(t, run, "secret", 200)
			f.Owned, f.Owner = true, "user_9"
			w.put("run_status", run, f)
		},
		"the run is gone": func(run string) {
			f := told(t, run, "", 200)
			f.Negative = true
			w.put("run_status", run, f)
		},
		// Its document stays as it is, so nothing but the owner can tell.
		"the run gains an owner alone": func(run string) {
			f := told(t, run, "one", 200)
			f.Owned, f.Owner = true, "user_9"
			w.put("run_status", run, f)
		},
	}
	n := 0
	for name, change := range ends {
		n++
		run := fmt.Sprintf("RUN%d", n)
		w.put("run_status", run, told(t, run, "one", 100))
		anonymous, user := w.watch("/status/"+run), w.watch("/status/"+run, "Authorization", token(t, "user_1"))
		owner := w.watch("/status/"+run, "Authorization", token(t, "user_9"))
		for _, c := range []*client{anonymous, user, owner} {
			c.next()
		}
		change(run)
		for _, c := range []*client{anonymous, user} {
			for _, e := range c.rest() {
				if e.data != "" {
					t.Errorf("%s: it was sent %+v", name, e)
				}
			}
		}
		if !strings.HasSuffix(name, "gone") {
			w.put("run_status", run, func() cache.Fill {
				f := told(t, run, "later", 300)
				f.Owned, f.Owner = true, "user_9"
				return f
			}())
			for last := ""; !strings.Contains(last, "later"); {
				last = owner.next().data
			}
		}
	}
}

func TestAStreamEndsWithItsToken(t *testing.T) {
	w := begin(t)
	w.quick(func(s *watchTimes) { s.heartbeat = 20 * time.Millisecond })
	w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	soon := time.Now().Add(time.Second)
	c := w.watch("/status/RUN1", "Authorization", token(t, "user_1", func(claims jwt.MapClaims) { claims["exp"] = soon.Unix() + 1 }))
	stays := w.watch("/status/RUN1", "Authorization", token(t, "user_1"))
	c.next()
	c.rest()
	if time.Now().Before(soon) {
		t.Error("it ended before its token")
	}
	stays.next()
	w.put("run_status", "RUN1", told(t, "RUN1", "two", 101))
	stays.next()
}

func TestHeartbeatsAndTheLifeOfAStream(t *testing.T) {
	w := begin(t)
	w.quick(func(s *watchTimes) { s.heartbeat, s.life = 10*time.Millisecond, 300*time.Millisecond })
	w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	begun := time.Now()
	c := w.watch("/status/RUN1")
	all := c.rest()
	if took := time.Since(begun); took < 250*time.Millisecond {
		t.Errorf("it lived for %s", took)
	}
	comments := 0
	for _, e := range all {
		if e.comment {
			comments++
		}
	}
	if len(all) < 3 || all[0].retry != "2000" || comments < 2 {
		t.Errorf("%d signs of life among %+v", comments, all)
	}
	w.nobodyWatches()
}

func TestLimitsOfWatchers(t *testing.T) {
	w := begin(t, func(o *Options) { o.MaxWatchers, o.MaxPerCaller = 4, 2 })
	e := w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	var clients []*client
	for _, user := range []string{"user_1", "user_1", "user_2"} {
		clients = append(clients, w.watch("/status/RUN1", "Authorization", token(t, user)))
	}
	poll := []string{"If-None-Match", e.ETag, "Prefer", "wait=30"}
	for _, how := range [][]string{{"Accept", eventStream}, poll} {
		a := w.get("/status/RUN1", append([]string{"Authorization", token(t, "user_1")}, how...)...)
		a.wants(t, 429, map[string]string{"Retry-After": "10"})
		if p := a.problem(t); p.Type != "/docs#rate-limited" {
			t.Errorf("problem %+v", p)
		}
	}
	clients = append(clients, w.watch("/status/RUN1", "Authorization", token(t, "user_2")))
	for _, how := range [][]string{{"Accept", eventStream}, poll} {
		w.get("/status/RUN1", append([]string{"Authorization", token(t, "user_3")}, how...)...).wants(t, 503, map[string]string{"Retry-After": "10"})
	}
	if text := string(w.get("/metrics").body); !strings.Contains(text, `mythic_cache_http_watchers{way="stream"} 4`) {
		t.Error("the gauge of watchers does not say 4")
	}
	for _, c := range clients {
		c.cancel()
	}
	w.nobodyWatches()
	w.watch("/status/RUN1", "Authorization", token(t, "user_1")).next()
}

// TestWhatWasMissedIsSentAfterAll loses the subscription while entries change, then
// everything that Redis has, then fences the whole view.
func TestWhatWasMissedIsSentAfterAll(t *testing.T) {
	w := begin(t)
	w.quick(func(s *watchTimes) { s.mark, s.ask = 50*time.Millisecond, 50*time.Millisecond })
	const runs = 130 // more than one look takes in
	var clients []*client
	for n := range runs {
		run := fmt.Sprintf("RUN%d", n)
		w.put("run_status", run, told(t, run, "one", 100))
		clients = append(clients, w.watch("/status/"+run, "Authorization", "Bearer "+eventsToken))
	}
	all := func(what, message string) {
		t.Helper()
		for n, c := range clients {
			if e := c.next(); !strings.Contains(e.data, fmt.Sprintf(`"message":%q`, message)) {
				t.Fatalf("%s: run %d was sent %+v", what, n, e)
			}
		}
	}
	all("at first", "one")
	w.silently(func() {
		for n := range runs {
			run := fmt.Sprintf("RUN%d", n)
			w.put("run_status", run, told(t, run, "two", 101))
		}
	})
	if err := w.client.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	all("the subscription was lost", "two")

	w.worker(func(e event.Event) { w.put(e.View, e.Subject, told(t, e.Subject, "three", 102)) })
	if err := w.store.FenceAll(t.Context(), w.views.All(), at(t, 1, "102:102:").Version()); err != nil {
		t.Fatal(err)
	}
	all("the view was fenced", "three")
	if n := len(w.events.all()); n < runs || n > 3*runs {
		t.Errorf("%d fills were asked for", n)
	}
}

// silently does something with nobody hearing the announcements.
func (w *world) silently(do func()) {
	w.t.Helper()
	if err := w.client.ConfigSet(w.t.Context(), "notify-keyspace-events", "").Err(); err != nil {
		w.t.Fatal(err)
	}
	user := "ACL"
	if err := w.client.Do(w.t.Context(), user, "SETUSER", "default", "resetchannels").Err(); err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := w.client.Do(context.WithoutCancel(w.t.Context()), user, "SETUSER", "default", "allchannels").Err(); err != nil {
			w.t.Fatal(err)
		}
	}()
	do()
}

func TestAnEntryIsLookedAtNowAndThen(t *testing.T) {
	w := begin(t)
	w.quick(func(s *watchTimes) { s.mark, s.look = 20*time.Millisecond, 50*time.Millisecond })
	w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	c := w.watch("/status/RUN1")
	c.next()
	raw := w.put("run_status", "RUN2", told(t, "RUN2", "two", 101))
	// As if its announcement had been lost.
	value, err := w.client.Get(t.Context(), "mythic:run_status:{RUN2}").Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.client.Set(t.Context(), "mythic:run_status:{RUN1}", value, time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if e := c.next(); e.id != raw.ETag {
		t.Errorf("%+v", e)
	}
}

func TestWhatIsOlderIsNotSent(t *testing.T) {
	w := begin(t)
	w.put("run_status", "RUN1", told(t, "RUN1", "two", 102))
	c := w.watch("/status/RUN1")
	c.next()
	old := told(t, "RUN1", "one", 101)
	w.server.watches.mu.Lock()
	topic := w.server.watches.topics[topicKey{"run_status", "RUN1"}]
	w.server.watches.mu.Unlock()
	w.server.watches.tell(topic, cache.Entry{View: "run_status", Key: "RUN1", Version: old.Version, ETag: `"old"`, Body: old.Body, Saved: time.Now().Add(time.Hour)}, time.Now())
	// Of the same version, what was stored earlier.
	same := told(t, "RUN1", "before", 102)
	w.server.watches.tell(topic, cache.Entry{View: "run_status", Key: "RUN1", Version: same.Version, ETag: `"before"`, Body: same.Body, Saved: time.Now().Add(-time.Hour)}, time.Now())
	last := w.put("run_status", "RUN1", told(t, "RUN1", "three", 103))
	if e := c.next(); e.id != last.ETag {
		t.Errorf("%+v", e)
	}
}

// TestASlowReaderGetsTheNewestOrIsDropped has a client that does not read, and one
// beside it that does.
func TestASlowReaderGetsTheNewestOrIsDropped(t *testing.T) {
	w := begin(t)
	w.quick(func(s *watchTimes) { s.patience = 300 * time.Millisecond })
	big := func(n int) cache.Fill {
		f := told(t, "RUN1", fmt.Sprint(n)+strings.Repeat("x", 200_000), 100+n)
		return f
	}
	w.put("run_status", "RUN1", big(0))
	address, _ := w.serve()
	slow, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if err := slow.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(slow, "GET /status/RUN1 HTTP/1.1\r\nHost: x\r\nAccept: %s\r\n\r\n", eventStream)
	w.watchers(1)
	other := w.watch("/status/RUN1")
	ended := func() error {
		if text := string(w.get("/metrics").body); !strings.Contains(text, `mythic_cache_http_watch_ended_total{why="slow"} 1`) {
			return errors.New("it has not been dropped")
		}
		return nil
	}
	other.next()
	n := 1
	for ; ended() != nil && n < 100; n++ {
		w.put("run_status", "RUN1", big(n))
		if e := other.next(); !strings.Contains(e.data, fmt.Sprintf(`"message":"%dx`, n)) {
			t.Fatalf("the other is sent %.80s", e.data)
		}
	}
	if err := ended(); err != nil {
		t.Error(err)
	}
	w.put("run_status", "RUN1", big(n))
	other.next()
}

// TestLatestWins has a client pause in the middle of many changes: it gets the newest
// then, and not all between; nothing, where that is what it was being sent.
func TestLatestWins(t *testing.T) {
	latestWins(t, "50", 2)
	latestWins(t, "0", 1)
}

func latestWins(t *testing.T, last string, sends int) {
	t.Helper()
	w := begin(t)
	w.put("run_status", "RUN1", told(t, "RUN1", "0", 100))
	out := &heldSink{begun: make(chan struct{}), release: make(chan struct{}), sent: make(chan string, 100)}
	one := &feed{of: w.server.watches, out: out, done: make(chan struct{}), timer: time.NewTimer(time.Hour), until: time.Now().Add(time.Hour)}
	t0, err := w.server.watches.join(w.view("run_status"), w.entry("run_status", "RUN1"), time.Now(), caller{}, one)
	if err != nil {
		t.Fatal(err)
	}
	one.topic = t0
	<-out.begun
	for n := range 49 {
		w.put("run_status", "RUN1", told(t, "RUN1", fmt.Sprint(n+1), 101+n))
	}
	w.put("run_status", "RUN1", told(t, "RUN1", last, 150))
	testserver.Eventually(t, "all is heard", func() error {
		one.mu.Lock()
		defer one.mu.Unlock()
		if one.next == nil || !strings.Contains(string(one.next.event), fmt.Sprintf(`"message":%q`, last)) {
			return errors.New("not yet")
		}
		return nil
	})
	close(out.release)
	testserver.Eventually(t, "all is sent", func() error {
		one.mu.Lock()
		defer one.mu.Unlock()
		if one.sending {
			return errors.New("not yet")
		}
		return nil
	})
	if len(out.sent) != sends {
		t.Fatalf("%d were sent, want %d", len(out.sent), sends)
	}
	for _, message := range []string{"0", last}[:sends] {
		if text := <-out.sent; !strings.Contains(text, fmt.Sprintf(`"message":%q`, message)) {
			t.Errorf("sent %s, want %s", text, message)
		}
	}
	one.end(endGone)
	w.nobodyWatches()
}

// heldSink holds back what is sent until it is released.
type heldSink struct {
	begun, release chan struct{}
	once           sync.Once
	sent           chan string
}

func (h *heldSink) send(text []byte, _ time.Duration) error {
	h.once.Do(func() { close(h.begun) })
	<-h.release
	h.sent <- string(text)
	return nil
}
func (*heldSink) hurry() {}
func (*heldSink) close() {}

// serve serves on a listener of its own, with the timeouts of a real server, until the
// function that it returns or the test's end.
func (w *world) serve() (address string, stop func()) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return l.Addr().String(), stop
}

// watchers waits until so many watch.
func (w *world) watchers(n int) {
	w.t.Helper()
	testserver.Eventually(w.t, fmt.Sprintf("%d watch", n), func() error {
		if got := w.server.watches.count(); got != n {
			return fmt.Errorf("%d do", got)
		}
		return nil
	})
}

// entry reads an entry.
func (w *world) entry(name, key string) cache.Entry {
	w.t.Helper()
	r, err := w.store.Read(w.t.Context(), cache.Query{View: w.view(name), Key: key})
	if err != nil || r.Status != cache.Hit {
		w.t.Fatal(r.Status, err)
	}
	return r.Entry
}

// TestShutdownEndsWatchesAtOnce has clients by stream, one of which does not read, and
// by poll.
func TestShutdownEndsWatchesAtOnce(t *testing.T) {
	w := begin(t)
	e := w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	address, stop := w.serve()
	w.url = "http://" + address
	clients := []*client{w.watch("/status/RUN1"), w.watch("/status/RUN1")}
	answered := w.later("/status/RUN1", "If-None-Match", e.ETag, "Prefer", "wait=60")
	w.watchers(3)
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	for _, c := range clients {
		all := c.rest()
		if last := all[len(all)-1]; last.retry == "" || len(all) < 2 {
			t.Errorf("the last words were %+v", all)
		}
	}
	if a := <-answered; a.StatusCode != http.StatusNotModified {
		t.Errorf("the poll is answered with %d", a.StatusCode)
	}
	w.nobodyWatches()
	recorded := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/status/RUN1", http.NoBody)
	r.Header.Set("Accept", eventStream)
	w.server.Handler().ServeHTTP(recorded, r)
	if recorded.Code != http.StatusServiceUnavailable {
		t.Errorf("a new one is answered with %d", recorded.Code)
	}
}

// TestShutdownHurriesWhoDoesNotRead has a client in the midst of an event that it does
// not take, and would have a minute for.
func TestShutdownHurriesWhoDoesNotRead(t *testing.T) {
	w := begin(t)
	w.quick(func(s *watchTimes) { s.patience = time.Minute })
	w.put("run_status", "RUN1", told(t, "RUN1", strings.Repeat("x", 2_000_000), 100))
	address, stop := w.serve()
	slow := w.dial(address)
	if err := slow.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(slow, "GET /status/RUN1 HTTP/1.1\r\nHost: x\r\nAccept: %s\r\n\r\n", eventStream)
	if _, err := io.ReadFull(slow, make([]byte, 2_000)); err != nil {
		t.Fatal(err)
	}
	stop()
	w.nobodyWatches()
}

// TestAStreamOutlivesTheServersTimeouts has them very short.
func TestAStreamOutlivesTheServersTimeouts(t *testing.T) {
	w := begin(t)
	w.server.timeouts.read, w.server.timeouts.write, w.server.timeouts.idle = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	w.quick(func(s *watchTimes) { s.heartbeat = 50 * time.Millisecond })
	e := w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	address, _ := w.serve()
	w.url = "http://" + address
	c := w.watch("/status/RUN1")
	c.next()
	answered := w.later("/status/RUN1", "If-None-Match", e.ETag, "Prefer", "wait=60")
	for beats := 0; beats < 8; {
		if (<-c.events).comment {
			beats++
		}
	}
	w.watchers(2)
	second := w.put("run_status", "RUN1", told(t, "RUN1", "two", 101))
	if got := c.next(); got.id != second.ETag {
		t.Errorf("%+v", got)
	}
	(<-answered).wants(t, 200, map[string]string{"ETag": second.ETag})
}

// TestAStreamOfHTTP2 shares its connection with other requests.
func TestAStreamOfHTTP2(t *testing.T) {
	w := begin(t)
	// Between two heartbeats is more than the patience that each of them is sent with.
	w.quick(func(s *watchTimes) { s.heartbeat, s.patience = 800*time.Millisecond, 400*time.Millisecond })
	front := httptest.NewUnstartedServer(w.server.Handler())
	front.EnableHTTP2 = true
	front.Config.WriteTimeout = 100 * time.Millisecond
	front.StartTLS()
	defer front.Close()
	w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	watch := func() (c *client, body io.Closer) {
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, front.URL+"/status/RUN1", http.NoBody)
		r.Header.Set("Accept", eventStream)
		response, err := front.Client().Do(r)
		if err != nil || response.ProtoMajor != 2 {
			t.Fatal(response, err)
		}
		c = &client{t: t, response: response, events: make(chan sent, 1000), cancel: cancel}
		go c.read()
		return c, response.Body
	}
	c, body := watch()
	c.next()
	for beats := 0; beats < 2; {
		if (<-c.events).comment {
			beats++
		}
	}
	e := w.put("run_status", "RUN1", told(t, "RUN1", "two", 101))
	if got := c.next(); got.id != e.ETag {
		t.Errorf("%+v", got)
	}
	w.watchers(1)
	c.cancel()
	w.nobodyWatches()
	body.Close()
	// One that hangs up is not only found out by what it is sent next.
	w.quick(func(s *watchTimes) { s.heartbeat = time.Hour })
	c, body = watch()
	c.next()
	w.watchers(1)
	c.cancel()
	w.nobodyWatches()
	body.Close()
}

// TestManyWatchInManyProcesses has two servers on one Redis, and changes all the time.
func TestManyWatchInManyProcesses(t *testing.T) {
	w := begin(t, func(o *Options) { o.MaxPerCaller = 1000 })
	other := w.another()
	const runs, watchers, changes = 10, 10, 30
	var clients [][]*client
	for n := range runs {
		run := fmt.Sprintf("RUN%d", n)
		w.put("run_status", run, told(t, run, "first", 100))
		var of []*client
		for i := range watchers {
			of = append(of, []*world{w, other}[i%2].watch("/status/"+run))
		}
		clients = append(clients, of)
	}
	var last []cache.Entry
	for n := range runs {
		run := fmt.Sprintf("RUN%d", n)
		for i := range changes {
			w.put("run_status", run, told(t, run, fmt.Sprint(i), 101+i))
		}
		last = append(last, w.put("run_status", run, told(t, run, "last", 200)))
	}
	for n, of := range clients {
		for _, c := range of {
			seen := map[string]bool{}
			for e := c.next(); e.id != last[n].ETag; e = c.next() {
				if seen[e.id] {
					t.Fatalf("run %d was sent %s twice", n, e.data)
				}
				seen[e.id] = true
			}
		}
	}
	if n, err := w.client.PubSubNumSub(t.Context(), "mythic:filled").Result(); err != nil || n["mythic:filled"] != 2 {
		t.Errorf("two processes have %v subscriptions: %v", n, err)
	}
	for _, of := range clients {
		for _, c := range of {
			c.cancel()
		}
	}
	w.nobodyWatches()
	other.nobodyWatches()
}

// another is a second process of the same deployment.
func (w *world) another() *world {
	w.t.Helper()
	o := w.server.o
	waiters := w.store.NewWaiters()
	w.run(func(ctx context.Context) { waiters.Run(ctx) })
	testserver.Eventually(w.t, "waiters listen", waiters.Ready)
	o.Waiters, o.Registry = waiters, nil
	server, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	front := httptest.NewServer(server.Handler())
	w.t.Cleanup(front.Close)
	other := *w
	other.server, other.url = server, front.URL
	return &other
}
