package stream_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
	"mythiccache/migrations"
	"mythiccache/producers"
	"mythiccache/producers/stream"
)

// These are short, so that what a dead worker held, or one that hangs, comes back soon.
const (
	nemesisClaimAfter = time.Second
	nemesisTimeout    = time.Second
)

// nemesis is some workers over one Redis, a relay that sends again what Redis loses,
// sources, and a ledger of what was handled.
type nemesis struct {
	*world
	seed     int
	database string // URL; empty: no relay, all is published straight
	conn     *pgx.Conn
	ledger   *nemesisLedger
	links    []*nemesisLink
	workers  []*nemesisProcess
	relay    *nemesisProcess
	straight *stream.Publisher

	numbers     atomic.Int64
	stopSources func() error
	met         *record
}

// newNemesis makes servers and, where there is a PostgreSQL, a database with an outbox
// and a relay.
func newNemesis(t *testing.T, postgres *testserver.Postgres, seed int) *nemesis {
	t.Helper()
	// Redis writes each write at once, and never rewrites its log, so that its tail
	// can be cut off.
	server := testserver.NewRedis(t, "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")
	n := &nemesis{
		world: &world{T: t, server: server, client: server.Client(t), keys: stream.NewKeys(nemesisPrefix)},
		seed:  seed, ledger: startNemesisLedger(t, nemesisGroups()), met: newRecord(),
	}
	n.straight = n.publisher(stream.PublisherOptions{})
	n.stopSources = func() error { return nil }
	if postgres != nil {
		n.startRelay(postgres)
	}
	return n
}

const nemesisPrefix = "test:"

func (n *nemesis) startRelay(postgres *testserver.Postgres) {
	n.Helper()
	n.database = postgres.Database(n)
	_, err := producers.Migrate(n.Context(), n.database)
	n.must(err)
	n.conn = n.connect()
	_, err = n.conn.Exec(n.Context(), migrations.DemoTables())
	n.must(err)
	views, err := view.Parse("views.yaml", view.Mythic(), nil)
	n.must(err)
	_, err = producers.Install(n.Context(), n.conn, views)
	n.must(err)
	n.relay = startNemesisProcess(n, "relay", assignment{Prefix: nemesisPrefix, Redis: n.server.URL(), Postgres: n.database})
}

func (n *nemesis) connect() *pgx.Conn {
	n.Helper()
	conn, err := pgx.Connect(n.Context(), n.database)
	n.must(err)
	n.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// startWorkers starts workers and waits until they read. The first always has the
// same name, so that it takes up at its start what it held; the others never have.
func (n *nemesis) startWorkers(count int, does assignment) {
	n.Helper()
	for i := range count {
		l := newNemesisLink(n, n.server.Port)
		does := does
		does.Worker, does.Prefix, does.Redis, does.Ledger = fmt.Sprintf("worker %d", i), nemesisPrefix, l.url, n.ledger.url
		if i == 0 {
			does.Name = "always-the-same"
		}
		n.links, n.workers = append(n.links, l), append(n.workers, startNemesisProcess(n, does.Worker, does))
	}
	for _, w := range n.workers {
		w.awaitReady()
	}
}

func (n *nemesis) number() string { return strconv.FormatInt(n.numbers.Add(1), 10) }

// meet causes a fault in the middle of the load.
func (n *nemesis) meet(d draw) {
	n.Helper()
	time.Sleep(d.before) // the load's own
	n.ledger.happens(d.fault.name)
	n.met.faults[d.fault.name]++
	if d.backlog > 0 {
		n.publishAll(wellBehaved, d.backlog)
	}
	started := time.Now()
	d.fault.cause(n, d)
	caused := time.Now()
	n.Logf("%s: %s", d, caused.Sub(started).Round(time.Millisecond))
	if d.awaited {
		n.probe()
		n.met.recovered[d.fault.name] = append(n.met.recovered[d.fault.name], time.Since(caused))
	}
}

// probe waits until every group has handled what was published just now.
func (n *nemesis) probe() {
	n.Helper()
	open := n.publishProbes()
	testserver.Eventually(n, "what is published next is handled", func() error {
		if open = slices.DeleteFunc(open, n.ledger.has); len(open) > 0 {
			return fmt.Errorf("%v are not", open)
		}
		return nil
	})
}

// publishProbes publishes an event for each group and each of its topics.
func (n *nemesis) publishProbes() (open []fate) {
	n.Helper()
	for group, topics := range nemesisGroups() {
		for _, topic := range topics {
			var id string
			n.must(n.conn.QueryRow(n.Context(), `SELECT mythic_cache.publish($1, $2, NULL)::text`, topic+".written", wellBehaved+"-"+n.number()).Scan(&id))
			n.ledger.publish(published{topic: topic, durable: true, certain: true}, id)
			open = append(open, fate{group, id})
		}
	}
	return open
}

// settle has the sources stop and waits until nothing is left to do.
func (n *nemesis) settle() {
	n.Helper()
	n.ledger.happens("the end")
	n.must(n.stopSources())
	for _, w := range n.workers {
		w.awaitReady()
	}
	started := time.Now()
	open := n.ledger.open()
	testserver.Eventually(n, "all is handled", func() error {
		if open = slices.DeleteFunc(open, n.ledger.has); len(open) > 0 {
			return fmt.Errorf("%d are not, such as %v", len(open), open[0])
		}
		return nil
	})
	n.idle()
	n.Logf("settled in %s", time.Since(started).Round(time.Millisecond))
}

// idle waits until every group has read all, and nothing is pending or parked.
func (n *nemesis) idle() {
	n.Helper()
	testserver.Eventually(n, "the groups are idle", func() error {
		states, err := stream.Groups(n.Context(), n.client, n.keys, nemesisTopics())
		if err != nil {
			return err
		}
		for _, s := range states {
			if s.Lag != 0 || s.Pending != 0 || s.Parked != 0 {
				return fmt.Errorf("%+v", s)
			}
		}
		if want := len(slices.Concat(slices.Collect(maps.Values(nemesisGroups()))...)); len(states) != want {
			return fmt.Errorf("there are %d groups of streams, not %d", len(states), want)
		}
		return nil
	})
}

// weigh returns what is wrong.
func (n *nemesis) weigh() wrongs {
	n.Helper()
	letters, err := n.letters().List(n.Context(), stream.Filter{})
	n.must(err)
	n.ledger.mu.Lock()
	defer n.ledger.mu.Unlock()
	n.ledger.books.letters = letters
	return n.ledger.books.weigh()
}

// balance demands that nothing is wrong.
func (n *nemesis) balance() {
	n.Helper()
	if wrong := n.weigh(); len(wrong) > 0 {
		n.Fatalf("what is wrong:\n%s", wrong)
	}
}

// stopAll asks all processes to end, and demands that they do so well.
func (n *nemesis) stopAll() {
	n.Helper()
	for _, w := range n.workers {
		w.stop()
	}
	if n.relay != nil {
		n.relay.stop()
	}
}

func (n *nemesis) must(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}
