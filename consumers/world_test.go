package consumers

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
	"mythiccache/producers"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

var postgres *testserver.Postgres

func TestMain(m *testing.M) { testserver.Main(m, &postgres) }

// things is a table whose view is precomputed, and that tests have for their own.
const things = `
views:
  thing:
    key: [id]
    on_change: precompute
    ttl: 1h
    load: SELECT json_build_object('n', n) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed}
    events: {things.forgotten: subject}
  slow: # waits for whoever holds the advisory lock 1
    key: [id]
    load: SELECT json_build_object('n', n, 'w', pg_advisory_xact_lock_shared(1)::text) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed}
  answer: {key: [digest], load: model}
`

// world is a database and a Redis with all that the consumers stand on.
type world struct {
	*testing.T
	ctx     context.Context
	pool    *pgxpool.Pool
	redis   *testserver.Redis
	store   *cache.Store
	views   *view.Set
	loader  *Loader
	filler  *Filler
	metrics *prometheus.Registry
}

// newWorld makes a migrated database with table things, and the views of yaml.
func newWorld(t *testing.T, pg *testserver.Postgres, yaml string) *world {
	t.Helper()
	views, err := view.Parse("views.yaml", []byte(yaml), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, ctx: t.Context(), redis: testserver.NewRedis(t, "--appendfsync", "always"), views: views, metrics: prometheus.NewRegistry()}
	url := pg.Database(t)
	if _, err := producers.Migrate(w.ctx, url); err != nil {
		t.Fatal(err)
	}
	if w.pool, err = NewPool(context.WithoutCancel(w.ctx), url, 20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
	w.exec("SELECT mythic_cache.begin_epoch(1)")
	w.exec("CREATE TABLE things (id text PRIMARY KEY, n int)")
	w.store = w.newStore()
	if w.loader, err = NewLoader(w.pool, LoaderOptions{Timeout: 5 * time.Second, Metrics: w.metrics}); err != nil {
		t.Fatal(err)
	}
	if w.filler, err = NewFiller(w.store, w.loader, FillerOptions{Lease: 300 * time.Millisecond, Metrics: w.metrics}); err != nil {
		t.Fatal(err)
	}
	if err := w.store.EnsureViews(w.ctx, views.All(), w.now()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) dial(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
	o, err := redis.ParseURL(w.redis.URL())
	if err != nil {
		return nil, err
	}
	o.OnConnect, o.ContextTimeoutEnabled = onConnect, true
	o.DialerRetries = 1
	return redis.NewClient(o), nil
}

func (w *world) newStore() *cache.Store {
	w.Helper()
	store, err := cache.New(w.dial, cache.Options{StaleFor: time.Minute})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { store.Close() })
	return store
}

func (w *world) view(name string) *view.View {
	w.Helper()
	v, ok := w.views.Lookup(name)
	if !ok {
		w.Fatalf("no view %s", name)
	}
	return v
}

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	if _, err := w.pool.Exec(w.ctx, sql, args...); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) text(sql string, args ...any) string {
	w.Helper()
	var text string
	if err := w.pool.QueryRow(w.ctx, sql, args...).Scan(&text); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
	return text
}

// now returns the version of a snapshot taken now, as the relay stamps an event.
func (w *world) now() version.Version {
	w.Helper()
	v, err := version.Parse(w.text("SELECT mythic_cache.version_text(mythic_cache.current_epoch(), pg_current_snapshot())"))
	if err != nil {
		w.Fatal(err)
	}
	return v
}

// set writes a thing and returns the version at which that is seen.
func (w *world) set(id string, n int) version.Version {
	w.Helper()
	w.exec("INSERT INTO things VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET n = excluded.n", id, n)
	return w.now()
}

// body returns what a reader gets, "" for a miss and "stale …" past its time.
func (w *world) body(name, key string) string {
	w.Helper()
	found, err := w.store.Read(w.ctx, cache.Query{View: w.view(name), Key: key})
	if err != nil {
		w.Fatal(err)
	}
	switch {
	case found.Status == cache.Miss:
		return ""
	case found.Status == cache.Stale:
		return "stale " + string(found.Entry.Body)
	case found.Entry.Negative:
		return "absent"
	}
	return string(found.Entry.Body)
}

// fill fills a key that must be fillable.
func (w *world) fill(name, key string) {
	w.Helper()
	if err := w.filler.Fill(w.ctx, w.view(name), key, FillOptions{}); err != nil {
		w.Fatal(err)
	}
}

// wants fails the test unless a reader gets that body.
func (w *world) wants(name, key, want string) {
	w.Helper()
	if got := w.body(name, key); got != want {
		w.Errorf("%s %s reads as %q, want %q", name, key, got, want)
	}
}

// loads returns how many loads there have been, failed ones included.
func (w *world) loads() (n uint64) {
	w.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "mythic_cache_load_seconds" {
			continue
		}
		for _, m := range family.GetMetric() {
			n += m.GetHistogram().GetSampleCount()
		}
	}
	return n
}

// waiter listens to the announcements about a key.
func (w *world) waiter(name, key string) <-chan cache.Filled {
	w.Helper()
	waiters := w.store.NewWaiters()
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = waiters.Run(ctx)
	}()
	wait := waiters.Wait(name, key)
	w.Cleanup(func() {
		wait.Cancel()
		cancel()
		<-done
	})
	testserver.Eventually(w.T, "subscribe", waiters.Ready)
	return wait.C()
}

// blockLoads holds up every load of view slow until the returned function is
// called.
func (w *world) blockLoads() (release func()) {
	w.Helper()
	conn, err := w.pool.Acquire(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	if _, err := conn.Exec(w.ctx, "SELECT pg_advisory_lock(1)"); err != nil {
		w.Fatal(err)
	}
	return func() {
		w.Helper()
		if _, err := conn.Exec(w.ctx, "SELECT pg_advisory_unlock(1)"); err != nil {
			w.Fatal(err)
		}
		conn.Release()
	}
}

// loading waits until a load of view slow is held up: it has its snapshot.
func (w *world) loading() {
	w.Helper()
	testserver.Eventually(w.T, "load is held up", func() error {
		if w.text("SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "0" {
			return errors.New("nobody waits")
		}
		return nil
	})
}

// changed is a table event as the relay writes it.
func changed(name, key string, at version.Version) event.Event {
	return event.Event{Type: "things.changed", View: name, Subject: key, Version: at.String(), Time: time.Now()}
}

func messages(events ...event.Event) []*message.Message {
	all := make([]*message.Message, len(events))
	for i, e := range events {
		all[i] = stream.FromEvent(e)
	}
	return all
}

// ends fails the test unless each error of a handler is of its kind: nil, a
// sentinel, or errAny for an error that is neither a pause nor a rejection.
func (w *world) ends(got []error, want ...error) {
	w.Helper()
	if got == nil {
		got = make([]error, len(want))
	}
	if len(got) != len(want) {
		w.Fatalf("%d errors for %d events: %v", len(got), len(want), got)
	}
	for i := range want {
		paused, rejected := errors.Is(got[i], stream.ErrPause), errors.Is(got[i], stream.ErrReject)
		ok := errors.Is(got[i], want[i])
		if errors.Is(want[i], errAny) {
			ok = got[i] != nil && !paused && !rejected
		}
		if !ok || paused && rejected {
			w.Errorf("event %d ends with %v, want %v", i, got[i], want[i])
		}
	}
}

var errAny = errors.New("any error that costs a delivery")

// mythic returns the built-in views.
func mythic(t *testing.T) *view.Set {
	t.Helper()
	views, err := view.Parse("mythic.yaml", view.Mythic(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return views
}
