package producers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
	"mythiccache/migrations"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

var postgres *testserver.Postgres

func TestMain(m *testing.M) { testserver.Main(m, &postgres) }

// bed is a database with Mythic's tables and triggers, a Redis, and the fences
// that a relay asked for.
type bed struct {
	t      *testing.T
	url    string
	views  *view.Set
	conn   *pgx.Conn
	redis  *testserver.Redis
	client *redis.Client
	keys   stream.Keys
	fences *fences
}

// fences notes what a relay wants fenced.
type fences struct {
	mu     sync.Mutex
	all    []version.Version
	views  map[string][]version.Version
	ensure int
}

func (f *fences) FenceAll(_ context.Context, at version.Version) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, at)
	return nil
}

func (f *fences) FenceViews(_ context.Context, names []string, at version.Version) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.views == nil {
		f.views = map[string][]version.Version{}
	}
	for _, name := range names {
		f.views[name] = append(f.views[name], at)
	}
	return nil
}

// of returns the versions at which one view was fenced.
func (f *fences) of(name string) []version.Version {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.views[name])
}

func (f *fences) EnsureViews(context.Context, version.Version) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ensure++
	return nil
}

func (f *fences) fenced() []version.Version {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all)
}

func mythicText() string { return string(view.Mythic()) }

func mythic(t *testing.T) *view.Set {
	t.Helper()
	return parse(t, mythicText())
}

func parse(t *testing.T, text string) *view.Set {
	t.Helper()
	views, err := view.Parse("views.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return views
}

func newBed(t *testing.T) *bed {
	t.Helper()
	t.Parallel()
	return newBedOn(t, postgres, mythic(t))
}

func newBedOn(t *testing.T, pg *testserver.Postgres, views *view.Set) *bed {
	t.Helper()
	r := testserver.NewRedis(t)
	b := &bed{t: t, url: pg.Database(t), views: views, redis: r, client: r.Client(t), keys: stream.NewKeys("mythic:"), fences: &fences{}}
	if _, err := Migrate(t.Context(), b.url); err != nil {
		t.Fatal(err)
	}
	b.conn = b.connect()
	b.exec(migrations.DemoTables())
	b.installQuietly()
	return b
}

func (b *bed) install() []string {
	b.t.Helper()
	said, err := Install(b.t.Context(), b.conn, b.views)
	if err != nil {
		b.t.Fatal(err)
	}
	return said
}

// drift is what Examine finds, in one.
func (b *bed) drift(views *view.Set) error {
	b.t.Helper()
	d, err := Examine(b.t.Context(), b.conn, views)
	return errors.Join(err, d.Err())
}

// installQuietly installs and forgets that views were invalidated by that.
func (b *bed) installQuietly() {
	b.t.Helper()
	b.install()
	b.exec(`TRUNCATE mythic_cache.outbox`)
}

// connect opens a connection that is closed after the test.
func (b *bed) connect() *pgx.Conn {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (b *bed) exec(sql string, args ...any) {
	b.t.Helper()
	if _, err := b.conn.Exec(b.t.Context(), sql, args...); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

func one[T any](b *bed, sql string, args ...any) T {
	b.t.Helper()
	var value T
	if err := b.conn.QueryRow(b.t.Context(), sql, args...).Scan(&value); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func (b *bed) dial(url string) stream.Dial {
	return func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		o, err := redis.ParseURL(url)
		if err != nil {
			return nil, err
		}
		o.OnConnect, o.DialerRetries = onConnect, 1 // the relay tries again by itself
		o.ContextTimeoutEnabled = true
		return redis.NewClient(o), nil
	}
}

func (b *bed) options() RelayOptions {
	return RelayOptions{URL: b.url, Dial: b.dial(b.redis.URL()), Keys: b.keys, Views: b.views, Fences: b.fences,
		Log: zerolog.New(zerolog.NewTestWriter(b.t)).Level(zerolog.InfoLevel)}
}

// relay runs a relay until stop is called or the test ends.
func (b *bed) relay() (r *Relay, stop func()) { return b.relayWith(b.options()) }

func (b *bed) relayWith(o RelayOptions) (*Relay, func()) {
	b.t.Helper()
	r, err := NewRelay(o)
	if err != nil {
		b.t.Fatal(err)
	}
	return r, b.runRelay(r)
}

func (b *bed) runRelay(r *Relay) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

// entry is an event and where it stands.
type entry struct {
	event.Event
	stream, at string
}

// entries returns what is in the streams, stream by stream.
func (b *bed) entries() []entry {
	b.t.Helper()
	var all []entry
	names, err := b.client.Keys(b.t.Context(), "mythic:{stream}:*").Result()
	if err != nil {
		b.t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		if name == b.keys.Position() {
			continue
		}
		found, err := b.client.XRange(b.t.Context(), name, "-", "+").Result()
		if err != nil {
			b.t.Fatal(err)
		}
		for _, x := range found {
			e, err := event.Parse(func(field string) string { s, _ := x.Values[field].(string); return s })
			if err != nil {
				b.t.Fatalf("%s %v: %v", name, x, err)
			}
			if name != b.keys.Topic(e.Topic()) {
				b.t.Errorf("%s is in %s", e.Type, name)
			}
			all = append(all, entry{e, name, x.ID})
		}
	}
	return all
}

// sync waits until all that has committed is in the streams.
func (b *bed) sync() {
	b.t.Helper()
	mark := rand.Text()
	conn := b.connect()
	defer conn.Close(b.t.Context())
	if _, err := Publish(b.t.Context(), conn, event.Event{Type: "mark.made", Subject: mark}); err != nil {
		b.t.Fatal(err)
	}
	testserver.Eventually(b.t, "everything committed is in the streams", func() error {
		entries, err := b.client.XRevRange(b.t.Context(), b.keys.Topic("mark"), "+", "-").Result()
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if entry.Values["subject"] == mark {
				return nil
			}
		}
		return errors.New("not yet")
	})
}

// changes returns what do makes appear in the streams, as "type view key", sorted.
func (b *bed) changes(do func()) []string {
	b.t.Helper()
	b.sync()
	before := map[string]bool{}
	for _, e := range b.entries() {
		before[e.stream+e.at] = true
	}
	do()
	b.sync()
	var said []string
	for _, e := range b.entries() {
		if e.Topic() != "mark" && !before[e.stream+e.at] {
			said = append(said, strings.TrimRight(fmt.Sprintf("%s %s %s", e.Type, e.View, e.Subject), " "))
		}
	}
	slices.Sort(said)
	return said
}

func leaks(t *testing.T) {
	t.Helper()
	current := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, current) })
}

// valueOf reads a metric.
func valueOf(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var said dto.Metric
	if err := m.Write(&said); err != nil {
		t.Fatal(err)
	}
	return said.GetGauge().GetValue() + said.GetCounter().GetValue()
}
