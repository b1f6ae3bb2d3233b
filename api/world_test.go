package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/golang-jwt/jwt/v5"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// shared is the Redis of all tests. They run one after the other, and each begins
// by emptying it, or by starting it again where one before has stopped it.
var shared *testserver.Redis

func TestMain(m *testing.M) { os.Exit(runMain(m)) }

func runMain(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "mythic-cache-api-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if shared, err = testserver.StartRedis(context.Background(), testserver.RedisOptions{Dir: dir, Args: []string{"--appendonly", "no"}}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	openapi3filter.RegisterBodyDecoder("text/html", openapi3filter.PlainBodyDecoder)
	openapi3filter.RegisterBodyDecoder("text/event-stream", openapi3filter.PlainBodyDecoder)
	code = m.Run()
	shared.Stop()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

const (
	jwtSecret   = "a secret of thirty-two bytes, or a few more"
	eventsToken = "the app's own token"
	adminToken  = "the admin's token"
)

// world is a server with a Redis of its own, and what a test needs around it.
type world struct {
	t      testing.TB
	redis  *testserver.Redis
	client *redis.Client
	store  *cache.Store
	views  *view.Set
	server *Server
	url    string
	router routers.Router
	events *recorder

	checked int // answers that were held against the document
}

// begin starts a world on the shared Redis. The test changes options as needed.
func begin(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	select {
	case <-shared.Gone(): // by the test before
		if err := shared.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	default:
	}
	w := &world{t: t, redis: shared, client: shared.Client(t)}
	err := w.client.FlushAll(t.Context()).Err()
	if err != nil {
		t.Fatal(err)
	}
	if w.views, err = view.Parse("mythic.yaml", view.Mythic(), func(string) (string, bool) { return "", false }); err != nil {
		t.Fatal(err)
	}
	w.store, err = cache.New(func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		o, err := redis.ParseURL(w.redis.URL())
		if err != nil {
			return nil, err
		}
		o.OnConnect, o.ContextTimeoutEnabled = onConnect, true
		o.MaxRetries, o.DialerRetries, o.DialTimeout = -1, 1, time.Second
		return redis.NewClient(o), nil
	}, cache.Options{StaleFor: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	if err := w.store.EnsureViews(t.Context(), w.views.All(), at(t, 1, "10:10:").Version()); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Confirm(t.Context(), w.views.All(), w.store.RunID()); err != nil {
		t.Fatal(err)
	}
	waiters := w.store.NewWaiters()
	w.run(func(ctx context.Context) { waiters.Run(ctx) })
	testserver.Eventually(t, "waiters listen", waiters.Ready)

	publisher, err := stream.NewPublisher(func(func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		return w.redis.Client(t), nil
	}, stream.NewKeys("mythic:"), stream.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.events = &recorder{client: w.client, publisher: publisher}
	o := Options{
		Store: w.store, Reader: w.reader(0), Waiters: waiters, Views: w.views, Publisher: w.events,
		Auth: AuthOptions{JWTSecret: jwtSecret}, AdminToken: adminToken, EventsToken: eventsToken,
		Provider: "demo", Models: demoModels(t), Version: "1.2.3",
	}
	for _, c := range change {
		c(&o)
	}
	if w.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	w.run(func(ctx context.Context) { _ = w.server.RunAuth(ctx) })
	w.run(func(ctx context.Context) { _ = w.server.RunFlows(ctx) })
	front := httptest.NewUnstartedServer(w.server.Handler())
	if l := w.server.lane; l != nil {
		front.Listener, front.Config.ConnState = l.Listen(front.Listener, time.Minute), l.ConnState
	}
	front.Start()
	t.Cleanup(front.Close)
	w.url = front.URL
	w.readDocument()
	return w
}

// reader runs a reader that may keep so many bytes in memory.
func (w *world) reader(nearBytes int64) *cache.Reader {
	w.t.Helper()
	reader, err := w.store.NewReader(cache.ReaderOptions{Views: w.views.All(), NearBytes: nearBytes})
	if err != nil {
		w.t.Fatal(err)
	}
	w.run(func(ctx context.Context) { reader.Run(ctx) })
	testserver.Eventually(w.t, "the reader's link", reader.Ready)
	return reader
}

// run runs something until the test ends, and waits for it.
func (w *world) run(f func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { f(ctx) })
	w.t.Cleanup(func() { cancel(); group.Wait() })
}

func (w *world) readDocument() {
	w.t.Helper()
	answer, err := http.Get(w.url + "/openapi.json")
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := doc.Validate(w.t.Context()); err != nil {
		w.t.Fatalf("the OpenAPI document: %v", err)
	}
	doc.Servers = nil // the router would put "/" before paths that begin with one
	if w.router, err = legacy.NewRouter(doc); err != nil {
		w.t.Fatal(err)
	}
}

// answer is a response, its body read.
type answer struct {
	*http.Response
	body []byte
}

func (a *answer) problem(t testing.TB) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(a.body, &p); err != nil || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%d is no problem document: %s %s", a.StatusCode, a.Header.Get("Content-Type"), a.body)
	}
	return p
}

// get sends a GET; headers are names and values in turn.
func (w *world) get(path string, headers ...string) *answer {
	w.t.Helper()
	return w.do(http.MethodGet, path, "", headers...)
}

// do sends a request and holds the answer against the OpenAPI document.
func (w *world) do(method, path, body string, headers ...string) *answer {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	a, err := send(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.check(r, a)
	return a
}

// send is do without a world, for other goroutines than the test's.
func send(r *http.Request) (*answer, error) {
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return &answer{Response: response, body: body}, err
}

// check validates an answer. What no route is for is not in the document.
func (w *world) check(r *http.Request, a *answer) {
	w.t.Helper()
	if r.Method == http.MethodHead || r.Method == http.MethodOptions {
		return // the document says once that every GET and every path answers it
	}
	if strings.Contains(r.URL.RawPath, "%2F") { // the router would take it for a slash
		r = r.Clone(w.t.Context())
		r.URL.Path = strings.ReplaceAll(r.URL.RawPath, "%2F", "_")
	}
	route, params, err := w.router.FindRoute(r)
	if err != nil {
		if a.StatusCode != http.StatusNotFound && a.StatusCode != http.StatusMethodNotAllowed {
			w.t.Errorf("%s %s answers %d, and the document has no such operation: %v", r.Method, r.URL, a.StatusCode, err)
		}
		return
	}
	w.checked++
	input := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route}
	if err := validate(w.t.Context(), input, a); err != nil {
		w.t.Errorf("%s %s answers what the document does not say: %v\n%d %s", r.Method, r.URL, err, a.StatusCode, a.body)
	}
}

// validate holds an answer against its operation in the document.
func validate(ctx context.Context, input *openapi3filter.RequestValidationInput, a *answer) error {
	return openapi3filter.ValidateResponse(ctx, &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: a.StatusCode, Header: a.Header,
		Body:    io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	})
}

func (w *world) view(name string) *view.View {
	w.t.Helper()
	v, ok := w.views.Lookup(name)
	if !ok {
		w.t.Fatalf("no view %s", name)
	}
	return v
}

// put stores an entry, as a worker does.
func (w *world) put(name, key string, f cache.Fill) cache.Entry {
	w.t.Helper()
	lease, err := w.store.Lease(w.t.Context(), w.view(name), key, time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := w.store.Put(w.t.Context(), lease, f)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// at is a snapshot.
func at(t testing.TB, epoch uint64, text string) version.Snapshot {
	t.Helper()
	s, err := version.ParseSnapshot(epoch, text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill is a value read in the snapshot 100:100: of epoch 1.
func fill(t testing.TB, body string) cache.Fill {
	t.Helper()
	s := at(t, 1, "100:100:")
	return cache.Fill{Version: s.Version(), Snapshot: s, Body: []byte(body)}
}

// status is a document of /status.
func status(run string) string {
	return fmt.Sprintf(`{"runId":%q,"message":"","style":"","format":"",`+
		`"stages":{"data_collected":true,"images_downloaded":false,"book_generated":false},"files":{},"profile":{},`+
		`"status":"running","current_stage":"scraping","progress_percentage":40,"error_message":null}`, run)
}

// books is a document of /books/my.
func books(owner string) string {
	return fmt.Sprintf(`{"books":[{"id":"b1","run_id":"r1","title":%q,"created_at":"2026-01-02T03:04:05Z","profile_username":"p","profile_full_name":"P","has_pdf":true,"has_html":false}],"total":1}`, owner)
}

// token signs a token for a user.
func token(t testing.TB, user string, change ...func(jwt.MapClaims)) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}
	for _, c := range change {
		c(claims)
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(jwtSecret))
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + text
}

// recorder appends events to real streams and keeps them.
type recorder struct {
	client    *redis.Client
	publisher *stream.Publisher

	mu     sync.Mutex
	events []event.Event
	fail   error
	part   int // with fail: how many are appended nevertheless
}

func (r *recorder) Append(ctx context.Context, events ...event.Event) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]string, len(events))
	for i, e := range events {
		if r.fail != nil && i >= r.part {
			return ids, r.fail
		}
		id, err := r.client.XAdd(ctx, &redis.XAddArgs{Stream: "mythic:{stream}:" + e.Topic(), Values: e.Fields()}).Result()
		if err != nil {
			return ids, err
		}
		ids[i] = id
		r.events = append(r.events, e)
	}
	return ids, nil
}

func (r *recorder) AppendOnce(ctx context.Context, events ...event.Event) ([]string, []bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	failure := r.fail
	if failure != nil {
		events = events[:min(r.part, len(events))]
	}
	ids, before, err := r.publisher.AppendOnce(ctx, events...)
	for i := range ids {
		if !before[i] {
			r.events = append(r.events, events[i])
		}
	}
	return ids, before, errors.Join(err, failure)
}

func (r *recorder) all() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]event.Event(nil), r.events...)
}

func (r *recorder) failWith(err error, part int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail, r.part = err, part
}

// worker answers the fill.requested events of the real stream, in their order,
// with whatever the function does about each.
func (w *world) worker(handle func(e event.Event)) {
	w.run(func(ctx context.Context) {
		last := "0"
		for ctx.Err() == nil {
			streams, err := w.client.XRead(ctx, &redis.XReadArgs{Streams: []string{"mythic:{stream}:fill", last}, Block: 20 * time.Millisecond}).Result()
			if err != nil {
				continue // nothing new, or the end
			}
			for _, message := range streams[0].Messages {
				last = message.ID
				e, err := event.Parse(func(name string) string { s, _ := message.Values[name].(string); return s })
				if err != nil {
					w.t.Error(err)
				}
				handle(e)
			}
		}
	})
}
