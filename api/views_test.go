package api

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
)

// wants compares headers with regular expressions; "" means absent.
func (a *answer) wants(t *testing.T, code int, headers map[string]string) {
	t.Helper()
	if a.StatusCode != code {
		t.Fatalf("status %d, want %d: %s", a.StatusCode, code, a.body)
	}
	for name, want := range headers {
		got := strings.Join(a.Header.Values(name), ", ")
		if want == "" && got != "" || want != "" && !regexp.MustCompile("^(?:"+want+")$").MatchString(got) {
			t.Errorf("%s is %q, want %s", name, got, want)
		}
	}
}

func TestAHitSaysWhereItCameFrom(t *testing.T) {
	w := begin(t)
	e := w.put("run_status", "RUN1", fill(t, status("RUN1")))
	a := w.get("/status/RUN1")
	a.wants(t, 200, map[string]string{
		"Content-Type": "application/json", "Cache-Status": `mythic-cache; hit; ttl=(2[6-9]|30)`, "X-Cache": "HIT",
		"Age": "[0-2]", "ETag": regexp.QuoteMeta(e.ETag), "Cache-Control": "private, max-age=0, must-revalidate",
		"Vary": "Accept, Authorization, X-User-Id, Accept-Encoding", "Server-Timing": `redis;dur=[0-9.]+, total;dur=[0-9.]+`,
		"X-Process-Time": `[0-9]+\.[0-9]{6}`, "Content-Length": strconv.Itoa(len(e.Body)), "X-Content-Type-Options": "nosniff",
		"RateLimit": "", "Retry-After": "",
	})
	if string(a.body) != status("RUN1") {
		t.Errorf("body %s", a.body)
	}
	if len(w.events.all()) != 0 {
		t.Error("a hit asked for a fill")
	}
	head := w.do(http.MethodHead, "/status/RUN1", "")
	head.wants(t, 200, map[string]string{"ETag": regexp.QuoteMeta(e.ETag), "Content-Length": strconv.Itoa(len(e.Body)), "X-Cache": "HIT"})
	if len(head.body) != 0 {
		t.Error("HEAD has a body")
	}
}

func TestAMatchingCopyIs304(t *testing.T) {
	w := begin(t)
	e := w.put("run_status", "RUN1", fill(t, status("RUN1")))
	for _, match := range []string{e.ETag, "W/" + e.ETag, `"other", ` + e.ETag, "*"} {
		a := w.get("/status/RUN1", "If-None-Match", match)
		a.wants(t, 304, map[string]string{
			"ETag": regexp.QuoteMeta(e.ETag), "Cache-Status": "mythic-cache; hit; ttl=.*", "Cache-Control": "private, .*",
			"Vary": ".+", "Content-Type": "", "Content-Length": "", "Age": "[0-9]+",
		})
	}
	w.get("/status/RUN1", "If-None-Match", `"other"`).wants(t, 200, nil)
	w.put("user_books", "user_1", fill(t, books("user_1")))
	w.get("/books/my", "Authorization", token(t, "user_1")).wants(t, 200, map[string]string{"Vary": "Authorization, X-User-Id, Accept-Encoding"}) // which nobody watches
	w.get("/status/RUN1", "If-None-Match", strings.Trim(e.ETag, `"`)).wants(t, 200, nil)
}

func TestAMissIsFilledThroughTheStream(t *testing.T) {
	w := begin(t)
	w.worker(func(e event.Event) { w.put(e.View, e.Subject, fill(t, books(e.Subject))) })
	a := w.get("/books/my", "Authorization", token(t, "user_1"))
	a.wants(t, 200, map[string]string{
		"Cache-Status": `mythic-cache; fwd=uri-miss; ttl=(17|18)\d\d; stored`, "X-Cache": "MISS", "Age": "0",
		"Server-Timing": "redis;dur=.*, fill;dur=.*, total;dur=.*",
	})
	if string(a.body) != books("user_1") {
		t.Errorf("body %s", a.body)
	}
	asked := w.events.all()
	if len(asked) != 1 || asked[0].Type != event.FillRequested || asked[0].View != "user_books" || asked[0].Subject != "user_1" || asked[0].Data != nil {
		t.Errorf("asked %+v", asked)
	}
	w.get("/books/my", "Authorization", token(t, "user_1")).wants(t, 200, map[string]string{"X-Cache": "HIT"})
}

// The second answer comes from the cache and does not say so: the first answer about
// another's run often does, too.
func TestWhatIsNotThereIs404AndIsRemembered(t *testing.T) {
	w := begin(t)
	s := at(t, 1, "100:100:")
	w.worker(func(e event.Event) {
		w.put(e.View, e.Subject, cache.Fill{Negative: true, Version: s.Version(), Snapshot: s})
	})
	for range 2 {
		a := w.get("/status/NONE")
		a.wants(t, 404, map[string]string{
			"X-Cache": "MISS", "Cache-Status": "mythic-cache; fwd=miss", "ETag": "", "Age": "", "Cache-Control": "no-store", "Server-Timing": `total;dur=[0-9]+0\.000`,
			"X-Process-Time": `[0-9]+\.[0-9]{2}0000`, // or it would tell a hit from a fill
		})
		if p := a.problem(t); p.Type != "/docs#not-found" || p.Status != 404 {
			t.Errorf("problem %+v", p)
		}
	}
	if asked := w.events.all(); len(asked) != 1 {
		t.Errorf("it was asked for %d times", len(asked))
	}
}

// TestAnOldEntryIsRenewedOrServedStale lets entries grow old by a TTL of 1 ms.
func TestAnOldEntryIsRenewedOrServedStale(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = 400 * time.Millisecond })
	old := fill(t, status("OLD"))
	old.TTL = time.Millisecond
	for _, run := range []string{"RUN1", "RUN2"} {
		e := w.put("run_status", run, old)
		testserver.Eventually(t, "the entry is old", func() error {
			if time.Now().After(e.FreshUntil.Add(20 * time.Millisecond)) {
				return nil
			}
			return errors.New("fresh")
		})
	}
	stale := map[string]string{
		"Cache-Status": `mythic-cache; fwd=stale; ttl=-[1-9]; detail="stale"`, "X-Cache": "STALE", "ETag": `".+"`, "Age": `\d+`,
	}
	w.get("/status/RUN1").wants(t, 200, stale) // nobody fills
	// The next is not even forwarded (RFC 9211, 2.2).
	stale["Cache-Status"] = `mythic-cache; hit; ttl=-[1-9]; detail="stale"`
	begun := time.Now()
	w.get("/status/RUN1").wants(t, 200, stale)
	if took := time.Since(begun); took > 300*time.Millisecond {
		t.Errorf("the second stale answer waited %s for a worker that had not answered just now", took)
	}
	w.worker(func(e event.Event) {
		if e.Subject == "RUN2" {
			w.put(e.View, e.Subject, fill(t, status("NEW")))
		}
	})
	w.get("/status/RUN2").wants(t, 200, map[string]string{"Cache-Status": "mythic-cache; fwd=stale; ttl=.*; stored", "X-Cache": "MISS"})
	w.get("/status/RUN2").wants(t, 200, map[string]string{"X-Cache": "HIT"})
}

func TestAMissThatNobodyFillsIs503(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = 30 * time.Millisecond })
	a := w.get("/status/RUN1")
	a.wants(t, 503, map[string]string{"Retry-After": "1"})
	if p := a.problem(t); p.Type != "/docs#not-filled" {
		t.Errorf("problem %+v", p)
	}
}

func TestAFillThatFailsIs503AtOnceAndKeepsItsReason(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = time.Minute })
	w.worker(func(e event.Event) {
		lease, err := w.store.Lease(t.Context(), w.view(e.View), e.Subject, time.Minute)
		if err != nil {
			t.Error(err)
		}
		if err := w.store.Abandon(t.Context(), lease, "password of host db-7 is wrong"); err != nil {
			t.Error(err)
		}
	})
	a := w.get("/status/RUN1")
	a.wants(t, 503, map[string]string{"Retry-After": "1"})
	if strings.Contains(string(a.body), "db-7") {
		t.Errorf("internals in %s", a.body)
	}
}

func TestRequestsForOneKeyShareOneEvent(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = time.Minute })
	const callers = 50
	release := make(chan struct{})
	var fills atomic.Int32
	w.worker(func(e event.Event) {
		fills.Add(1)
		<-release
		w.put(e.View, e.Subject, fill(t, status(e.Subject)))
	})
	var group sync.WaitGroup
	var collapsed atomic.Int32
	for range callers {
		group.Go(func() {
			r, _ := http.NewRequest(http.MethodGet, w.url+"/status/RUN1", http.NoBody)
			a, err := send(r)
			if err != nil || a.StatusCode != http.StatusOK {
				t.Errorf("%v %v", a, err)
				return
			}
			if strings.Contains(a.Header.Get("Cache-Status"), "; collapsed") {
				collapsed.Add(1)
			}
		})
	}
	testserver.Eventually(t, "all wait", func() error {
		if n := w.server.misses.count(); n != callers {
			return errors.New(strconv.Itoa(n))
		}
		return nil
	})
	close(release)
	group.Wait()
	if n := len(w.events.all()); n != 1 || fills.Load() != 1 || collapsed.Load() != callers-1 {
		t.Errorf("%d events, %d fills, %d collapsed", n, fills.Load(), collapsed.Load())
	}
	testserver.Eventually(t, "nobody waits", func() error {
		if n := w.server.misses.count(); n != 0 {
			return errors.New(strconv.Itoa(n))
		}
		return nil
	})
	if len(w.server.misses.flights) != 0 {
		t.Error("a flight is left over")
	}
}

// TestAnAnnouncementThatWasMissed joins a flight after its announcement went by,
// and before the one who heard it has landed the flight.
func TestAnAnnouncementThatWasMissed(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = time.Minute })
	m := w.server.misses
	announced := m.waiters.Wait("run_status", "STORED")
	defer announced.Cancel()
	w.put("run_status", "STORED", fill(t, status("STORED")))
	<-announced.C()
	for _, run := range []string{"STORED", "REFUSED"} {
		a := ask{view: w.view("run_status"), key: run, event: fillRequest(w.view("run_status"), run, nil)}
		f := &flight{started: time.Now(), sent: make(chan struct{}), landed: make(chan struct{})}
		close(f.sent)
		m.mu.Lock()
		m.flights[a.flightKey()] = f
		m.mu.Unlock()
		got := make(chan error, 1)
		go func() {
			answer, err := m.await(t.Context(), a)
			if err == nil && answer.entry.Key != run {
				err = errors.New("got " + answer.entry.Key)
			}
			got <- err
		}()
		testserver.Eventually(t, "it waits", func() error {
			if m.count() != 1 {
				return errors.New("not yet")
			}
			return nil
		})
		m.land(a, f)
		if run == "REFUSED" { // nothing is stored: it asks anew
			testserver.Eventually(t, "it asks", func() error {
				if len(w.events.all()) != 1 {
					return errors.New("not yet")
				}
				return nil
			})
			w.put("run_status", run, fill(t, status(run)))
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
}

func TestTooManyWaitingAreRefusedAtOnce(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = time.Minute; o.MaxWaiting = 3 })
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() {
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/status/RUN"+strconv.Itoa(i), http.NoBody)
			if _, err := send(r); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		})
	}
	testserver.Eventually(t, "three wait", func() error {
		if n := w.server.misses.count(); n != 3 {
			return errors.New(strconv.Itoa(n))
		}
		return nil
	})
	a := w.get("/status/RUN9")
	a.wants(t, 503, map[string]string{"Retry-After": "1"})
	if p := a.problem(t); p.Type != "/docs#busy" {
		t.Errorf("problem %+v", p)
	}
	cancel() // a client that hangs up stops waiting
	group.Wait()
	testserver.Eventually(t, "nobody waits", func() error {
		if n := w.server.misses.count(); n != 0 {
			return errors.New(strconv.Itoa(n))
		}
		return nil
	})
}

// TestARefusedFillAnswersThoseWhoAskedBefore changes the key while it is loaded:
// the value is not stored, and still answers who asked before its lease.
func TestARefusedFillAnswersThoseWhoAskedBefore(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = time.Minute })
	w.worker(func(e event.Event) {
		// The lease must be taken in a later millisecond than the event's.
		heard := time.Now()
		testserver.Eventually(t, "a later millisecond", func() error {
			if time.Since(heard) < 2*time.Millisecond {
				return errors.New("too soon")
			}
			return nil
		})
		lease, err := w.store.Lease(t.Context(), w.view(e.View), e.Subject, time.Minute)
		if err != nil {
			t.Error(err)
			return
		}
		change := cache.Change{View: w.view(e.View), Key: e.Subject, Version: at(t, 1, "200:200:").Version()}
		if _, err := w.store.Invalidate(t.Context(), []cache.Change{change}); err != nil {
			t.Error(err)
		}
		if _, err := w.store.Put(t.Context(), lease, fill(t, status("OVERTAKEN"))); !errors.Is(err, cache.ErrRefused) {
			t.Errorf("put: %v", err)
		}
	})
	a := w.get("/status/RUN1")
	a.wants(t, 200, map[string]string{"Cache-Status": "mythic-cache; fwd=uri-miss; ttl=[0-9]+", "X-Cache": "MISS"})
	if string(a.body) != status("OVERTAKEN") {
		t.Errorf("body %s", a.body)
	}
}

// TestARefusedFillThatIsTooOldIsAskedForAgain announces a refused value whose
// lease was taken before the question.
func TestARefusedFillThatIsTooOldIsAskedForAgain(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = time.Minute })
	lease, err := w.store.Lease(t.Context(), w.view("run_status"), "RUN1", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	first := true
	w.worker(func(e event.Event) {
		if !first {
			w.put(e.View, e.Subject, cache.Fill{Version: at(t, 1, "200:200:").Version(), Snapshot: at(t, 1, "200:200:"), Body: []byte(status("NEW"))})
			return
		}
		first = false
		change := cache.Change{View: w.view(e.View), Key: e.Subject, Version: at(t, 1, "150:150:").Version()}
		if _, err := w.store.Invalidate(t.Context(), []cache.Change{change}); err != nil {
			t.Error(err)
		}
		if _, err := w.store.Put(t.Context(), lease, fill(t, status("OLD"))); !errors.Is(err, cache.ErrRefused) {
			t.Errorf("put: %v", err)
		}
	})
	a := w.get("/status/RUN1")
	a.wants(t, 200, nil)
	if string(a.body) != status("NEW") {
		t.Errorf("an answer older than its question: %s", a.body)
	}
	if n := len(w.events.all()); n != 2 {
		t.Errorf("%d events", n)
	}
}

func TestReadYourOwnWrites(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = time.Minute })
	w.put("run_status", "RUN1", fill(t, status("OLD")))
	w.get("/status/RUN1", "X-Min-Xid", "99").wants(t, 200, map[string]string{"X-Cache": "HIT"})
	w.get("/status/RUN1", "X-Min-Xid", "1-99").wants(t, 200, map[string]string{"X-Cache": "HIT"})
	var seenBy version.Snapshot
	w.worker(func(e event.Event) {
		switch string(e.Data) {
		case `{"min_xid":"150"}`, `{"min_xid":"150","epoch":"1"}`:
			seenBy = at(t, 1, "151:151:")
			w.put(e.View, e.Subject, cache.Fill{Version: seenBy.Version(), Snapshot: seenBy, Body: []byte(status("NEW"))})
		case `{"min_xid":"777"}`:
			w.fail(e, 777, "xid in progress")
		case `{"min_xid":"999"}`:
			w.fail(e, 999, "xid unknown")
		case `{"min_xid":"888"}`:
			w.fail(e, 888, "postgres is away")
		default:
			t.Errorf("asked %s", e.Data)
		}
	})
	a := w.get("/status/RUN1", "X-Min-Xid", "1-150")
	a.wants(t, 200, map[string]string{"X-Cache": "MISS", "Cache-Status": `mythic-cache; fwd=request; ttl=\d+; stored; detail="min-xid"`})
	if string(a.body) != status("NEW") {
		t.Errorf("body %s", a.body)
	}
	w.get("/status/RUN1", "X-Min-Xid", "150").wants(t, 200, map[string]string{"X-Cache": "HIT"})

	open := w.get("/status/RUN1", "X-Min-Xid", "777")
	open.wants(t, 409, map[string]string{"Retry-After": "1"})
	if p := open.problem(t); p.Type != "/docs#transaction-in-progress" {
		t.Errorf("problem %+v", p)
	}
	unknown := w.get("/status/RUN1", "X-Min-Xid", "999")
	unknown.wants(t, 400, nil)
	if p := unknown.problem(t); p.Type != "/docs#transaction-unknown" {
		t.Errorf("problem %+v", p)
	}
	away := w.get("/status/RUN1", "X-Min-Xid", "888")
	away.wants(t, 503, nil)
	if p := away.problem(t); p.Type != "/docs#not-filled" {
		t.Errorf("problem %+v", p)
	}
	for _, bad := range []string{"x", "-1", "0", "1-", "-", "0-5", "1-2-3", "+5", " ", "99999999999999999999999", "1_000"} {
		w.get("/status/RUN1", "X-Min-Xid", bad).wants(t, 400, nil)
	}
	w.get("/status/RUN1", "X-Min-Xid", "5", "X-Min-Xid", "6").wants(t, 400, nil)
}

// TestAnEntryThatHasNotSeenTheTransactionIsNoAnswer has somebody else's fill come
// first.
func TestAnEntryThatHasNotSeenTheTransactionIsNoAnswer(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = time.Minute })
	first := true
	w.worker(func(e event.Event) {
		f := fill(t, status("OLD"))
		if !first {
			f.Snapshot, f.Body = at(t, 1, "151:151:"), []byte(status("NEW"))
			f.Version = f.Snapshot.Version()
		}
		first = false
		w.put(e.View, e.Subject, f)
	})
	a := w.get("/status/RUN1", "X-Min-Xid", "150")
	a.wants(t, 200, nil)
	if n := len(w.events.all()); string(a.body) != status("NEW") || n != 2 {
		t.Errorf("after %d events: %s", n, a.body)
	}
}

// fail announces a failure that concerns one transaction.
func (w *world) fail(e event.Event, xid uint64, reason string) {
	if err := w.store.AnnounceFailure(context.Background(), e.View, e.Subject, &cache.MinXid{Xid: xid}, reason); err != nil {
		w.t.Error(err)
	}
}

// TestAFailureForOneTransactionIsNobodyElses lets two wait for the same key.
func TestAFailureForOneTransactionIsNobodyElses(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = time.Minute })
	plain := make(chan struct{})
	w.worker(func(e event.Event) {
		if e.Data != nil {
			w.fail(e, 777, "xid in progress")
			return
		}
		close(plain)
	})
	var group sync.WaitGroup
	group.Go(func() {
		r, _ := http.NewRequest(http.MethodGet, w.url+"/status/RUN1", http.NoBody)
		if a, err := send(r); err != nil || a.StatusCode != http.StatusOK {
			t.Errorf("%v %v", a, err)
		}
	})
	<-plain
	w.get("/status/RUN1", "X-Min-Xid", "777").wants(t, 409, nil)
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	group.Wait()
}

// TestAFrozenRedisIs503 stops Redis from running without closing a connection.
func TestAFrozenRedisIs503(t *testing.T) {
	w := begin(t)
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	if err := w.redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	a := w.get("/status/RUN1")
	took := time.Since(begun)
	if err := w.redis.Thaw(); err != nil {
		t.Fatal(err)
	}
	a.wants(t, 503, map[string]string{"Retry-After": "1"})
	if took >= 2*redisTimeout {
		t.Errorf("the request took %s", took)
	}
}

func TestRedisDownIs503AndBackIsBack(t *testing.T) {
	w := begin(t)
	w.put("run_status", "RUN1", fill(t, status("RUN1")))
	w.redis.Kill()
	a := w.get("/status/RUN1")
	a.wants(t, 503, map[string]string{"Retry-After": "1"})
	if p := a.problem(t); p.Type != "/docs#cache-away" {
		t.Errorf("problem %+v", p)
	}
	health := w.get("/health/redis")
	health.wants(t, 503, nil)
	if p := health.problem(t); p.Connected == nil || *p.Connected || p.LatencyMS == nil {
		t.Errorf("problem %+v", p)
	}
	w.get("/cache/stats").wants(t, 503, nil)
	w.get("/livez").wants(t, 200, nil)
	if err := w.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "redis is back", func() error {
		if a := w.get("/health/redis"); a.StatusCode != http.StatusOK {
			return errors.New(a.Status)
		}
		return nil
	})
}
