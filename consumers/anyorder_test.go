package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// counters is a table of numbers that only grow, and the two kinds of views of it.
// Their loads take their time between snapshot and answer, for changes to come
// between.
const counters = `
views:
  kept:
    key: [id]
    on_change: precompute
    ttl: 1h
    load: SELECT json_build_object('n', n, 'w', pg_sleep(0.015 * random() ^ 2)::text) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed}
    events: {things.forgotten: subject}
  dropped:
    key: [id]
    ttl: 1h
    load: SELECT json_build_object('n', n, 'w', pg_sleep(0.015 * random() ^ 2)::text) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed}
    events: {things.forgotten: subject}
`

// Events of few keys are told to three workers at the same time, in batches of any
// order, late and again and again, while fills of the same keys go on in each of
// them. Once any of them has applied a change, no reader gets a fresh value from
// before it; in the end, every entry is what SQL says.
func TestOrderOfEventsDoesNotMatter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, counters)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := &chaos{world: w, history: newHistory(w.views)}
	for _, key := range c.keys() {
		w.set(key, 0)
	}
	crew := []*crewman{c.crewman(), c.crewman(), c.crewman()}
	c.storm(seed, crew)
	c.calm(seed, crew)
	t.Logf("%d events, %d fresh answers", len(c.told), c.fresh.Load())
	if c.fresh.Load() < 100 {
		t.Errorf("%d fresh answers are too few to prove anything", c.fresh.Load())
	}
}

// chaos is what all who take part have in common.
type chaos struct {
	*world
	*history
	fresh atomic.Int64 // answers that were served as fresh
}

func (*chaos) keys() []string { return []string{"a", "b", "c", "d"} }

// changesOfWriter is how many changes each of three writers makes.
const changesOfWriter = 250

// storm goes on until the writers are done.
func (c *chaos) storm(seed uint64, crew []*crewman) {
	ctx, cancel := context.WithCancel(c.ctx)
	var writers, others sync.WaitGroup
	start := func(group *sync.WaitGroup, name string, do func(ctx context.Context, r *rand.Rand) error) {
		seed++
		r := rand.New(rand.NewPCG(seed, 0))
		group.Go(func() {
			for n := 0; ctx.Err() == nil && (group != &writers || n < changesOfWriter); n++ {
				if err := do(ctx, r); err != nil && ctx.Err() == nil {
					c.Errorf("%s: %v", name, err)
					cancel()
				}
			}
		})
	}
	for range 3 {
		start(&writers, "writer", c.write)
	}
	for _, m := range crew {
		start(&others, "invalidate", m.invalidate)
		start(&others, "invalidate", m.invalidate)
		start(&others, "precompute", m.precompute)
		start(&others, "fill", m.fill)
		start(&others, "fill", m.fill)
		start(&others, "reader", m.read)
	}
	writers.Wait()
	cancel()
	others.Wait()
}

// calm tells everybody of everything once more, side by side, and compares what is
// cached then, and what is filled upon it, with SQL.
func (c *chaos) calm(seed uint64, crew []*crewman) {
	c.Helper()
	var all sync.WaitGroup
	for i, m := range crew {
		all.Go(func() {
			told := c.tail(len(c.told))
			rand.New(rand.NewPCG(seed, uint64(i))).Shuffle(len(told), func(i, j int) { told[i], told[j] = told[j], told[i] })
			for batch := range slices.Chunk(told, 50) {
				if err := errors.Join(m.tell(c.ctx, m.invalidator.Handle, batch), m.tell(c.ctx, m.precomputer.Handle, batch)); err != nil {
					c.Error(err)
				}
			}
		})
	}
	all.Wait()
	for _, v := range c.views.All() {
		for _, key := range c.keys() {
			want := fmt.Sprintf(`{"n":%s,"w":""}`, c.text("SELECT n::text FROM things WHERE id = $1", key))
			if got := c.body(v.Name, key); got != "" && got != want {
				c.Errorf("%s %s is cached as %s, SQL says %s", v.Name, key, got, want)
			}
			c.fill(v.Name, key)
			c.wants(v.Name, key, want)
		}
	}
}

// write changes a row, in a transaction that others overtake now and then, and tells
// of it as the relay does or as the app does, and now and then of the whole view.
func (c *chaos) write(ctx context.Context, r *rand.Rand) error {
	key, n := c.keys()[r.IntN(4)], 0
	err := pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `UPDATE things SET n = n + 1 WHERE id = $1 RETURNING n`, key).Scan(&n); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `SELECT pg_sleep($1)`, r.Float64()*float64(r.IntN(2))*0.004)
		return err
	})
	if err != nil {
		return fmt.Errorf("change a row: %w", err)
	}
	c.commit(key, n)
	seen := c.seen()
	if r.IntN(15) == 0 { // a change that no trigger sees, of which the app tells itself
		c.tellOf(event.Event{Type: "things.forgotten", Subject: key}, seen)
		return nil
	}
	at, err := c.snapshot(ctx)
	if err != nil {
		return err
	}
	for _, v := range c.views.All() {
		c.tellOf(changed(v.Name, key, at), seen)
		if r.IntN(40) == 0 {
			c.tellOf(changed(v.Name, "", at), seen)
		}
	}
	return nil
}

func (c *chaos) snapshot(ctx context.Context) (version.Version, error) {
	var text string
	err := c.pool.QueryRow(ctx, "SELECT mythic_cache.version_text(mythic_cache.current_epoch(), pg_current_snapshot())").Scan(&text)
	if err != nil {
		return version.Version{}, fmt.Errorf("take a snapshot: %w", err)
	}
	return version.Parse(text)
}

// history is what was written and what of it was applied.
type history struct {
	shown []*view.View

	mu        sync.Mutex
	committed map[string]int            // by key: its newest number
	applied   map[string]map[string]int // by view and key: the newest number that an applied event has seen
	told      []told
}

// told is an event, and the number of each key when it was written.
type told struct {
	event event.Event
	seen  map[string]int
}

func newHistory(views *view.Set) *history {
	h := &history{shown: views.All(), committed: map[string]int{}, applied: map[string]map[string]int{}}
	for _, v := range h.shown {
		h.applied[v.Name] = map[string]int{}
	}
	return h
}

func (h *history) commit(key string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.committed[key] = max(h.committed[key], n)
}

// seen returns what any snapshot that is taken from now on has seen.
func (h *history) seen() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.committed)
}

func (h *history) tellOf(e event.Event, seen map[string]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, told{e, seen})
}

// tail returns the newest events, so many at most.
func (h *history) tail(n int) []told {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.told[max(0, len(h.told)-n):])
}

// apply notes that whoever reads from now on must get what the event has seen.
func (h *history) apply(d told) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.shown {
		if d.event.View != "" && d.event.View != v.Name {
			continue
		}
		for key, n := range d.seen {
			if d.event.Subject == "" || d.event.Subject == key {
				h.applied[v.Name][key] = max(h.applied[v.Name][key], n)
			}
		}
	}
}

// least returns the number from which on an answer is right.
func (h *history) least(name, key string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.applied[name][key]
}

// crewman is what one worker process has of its own.
type crewman struct {
	*chaos
	store       *cache.Store
	invalidator *Invalidator
	precomputer *Precomputer
	fills       *Fills
}

func (c *chaos) crewman() *crewman {
	c.Helper()
	m := &crewman{chaos: c, store: c.newStore()}
	filler, err := NewFiller(m.store, c.loader, FillerOptions{Lease: 300 * time.Millisecond})
	if err != nil {
		c.Fatal(err)
	}
	if m.invalidator, err = NewInvalidator(m.store, c.views, InvalidatorOptions{}); err != nil {
		c.Fatal(err)
	}
	m.precomputer = NewPrecomputer(m.store, filler, c.views, PrecomputerOptions{Patience: 50 * time.Millisecond})
	m.fills = NewFills(m.store, filler, c.views, FillsOptions{})
	return m
}

// some draws a batch of what has been told: of late, or ever, and some of it twice.
func (m *crewman) some(r *rand.Rand) []told {
	from := m.tail([]int{4, 30, 1 << 20}[r.IntN(3)])
	if len(from) == 0 {
		return nil
	}
	batch := make([]told, 1+r.IntN(8))
	for i := range batch {
		batch[i] = from[r.IntN(len(from))]
	}
	return batch
}

// tell has a batch handled until all of it is done.
func (m *crewman) tell(ctx context.Context, handle stream.BatchHandler, batch []told) error {
	for len(batch) > 0 {
		events := make([]event.Event, len(batch))
		for i, d := range batch {
			events[i] = d.event
		}
		errs := handle(ctx, messages(events...))
		var again []told
		for i, err := range errs {
			if errors.Is(err, stream.ErrPause) && ctx.Err() == nil {
				again = append(again, batch[i])
			} else if err != nil {
				return fmt.Errorf("%+v: %w", batch[i].event, err)
			}
		}
		batch = again
	}
	return nil
}

func (m *crewman) invalidate(ctx context.Context, r *rand.Rand) error {
	batch := m.some(r)
	if err := m.tell(ctx, m.invalidator.Handle, batch); err != nil {
		return err
	}
	for _, d := range batch {
		m.apply(d)
	}
	return nil
}

// precompute loads again what changed. What it says is done may not be served from
// before it either, though nobody else has applied it yet.
func (m *crewman) precompute(ctx context.Context, r *rand.Rand) error {
	batch := m.some(r)
	if err := m.tell(ctx, m.precomputer.Handle, batch); err != nil {
		return err
	}
	for _, d := range batch {
		if d.event.View == "kept" && d.event.Subject != "" {
			m.apply(d)
		}
	}
	return nil
}

func (m *crewman) fill(ctx context.Context, r *rand.Rand) error {
	return errors.Join(m.fills.Handle(ctx, messages(m.missed(r), m.missed(r), m.missed(r)))...)
}

func (m *crewman) missed(r *rand.Rand) event.Event {
	return missed(m.shown[r.IntN(len(m.shown))].Name, m.keys()[r.IntN(4)], "")
}

// read demands of a fresh answer that it has seen whatever had been applied before
// it was asked for.
func (m *crewman) read(ctx context.Context, r *rand.Rand) error {
	v, key := m.shown[r.IntN(len(m.shown))], m.keys()[r.IntN(4)]
	least := m.least(v.Name, key)
	found, err := m.store.Read(ctx, cache.Query{View: v, Key: key})
	if err != nil || found.Status != cache.Hit {
		return err
	}
	var got struct{ N int }
	if err := json.Unmarshal(found.Entry.Body, &got); err != nil {
		return err
	}
	m.fresh.Add(1)
	if got.N < least {
		return fmt.Errorf("%s %s: %d is served as fresh after the change to %d was applied", v.Name, key, got.N, least)
	}
	return nil
}
