package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/migrations"
	"mythiccache/producers"
	"mythiccache/producers/stream"
)

// How many faults TestRelayNemesis causes, and what it draws them by. The load is
// drawn by the seed too; when a fault meets it is the machine's to say.
const (
	nemesisFaults = "NEMESIS_FAULTS"
	nemesisSeed   = "NEMESIS_SEED"
)

const (
	takeoverBound = 30 * time.Second // far above what is measured
	relayRetains  = 5 * time.Second  // how long rows stay in the outbox
)

// relayNemesis is some relays over one PostgreSQL and one Redis, which nobody else
// uses, writers, and what it did to them.
type relayNemesis struct {
	*system
	random  *rand.Rand
	keys    stream.Keys
	relays  []*relayProcess
	order   atomic.Int64
	writers *relayWriters
	app     *app // writes what the faults themselves need
	ledger  *relayLedger

	resends  int   // since the last balance; see relayRound
	wiped    bool  // the same
	written  int64 // of Redis's log, at the last balance
	measured map[string][]time.Duration
	counted  struct{ committed, rolledBack, unknown, events, changes, entries, truncated int }
}

// Any fault of a relay, of either server or of the ways to them, in any order and
// under load: what committed is in the streams, nothing else is, and each event
// once, unless Redis lost its streams or the database began an epoch.
func TestRelayNemesis(t *testing.T) {
	t.Parallel()
	faults, seed := number(t, nemesisFaults, 0), number(t, nemesisSeed, rand.Uint64()>>1)
	t.Logf("%s=%d", nemesisSeed, seed)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again with %s=%d", nemesisSeed, seed)
		}
	})
	n := newRelayNemesis(t, seed)
	left := deal(relayFaults(), n.random, int(faults))
	for len(left) > 0 {
		few := min(len(left), 1+n.random.IntN(3))
		for _, f := range left[:few] {
			n.meet(f)
		}
		n.moment()
		n.balance()
		left = left[few:]
	}
	n.balance() // what came late would have come by now
	n.confirmed()
	n.report()
	for _, p := range n.relays {
		p.signal(syscall.SIGTERM)
	}
	for _, p := range n.relays {
		p.awaitEnd()
	}
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func newRelayNemesis(t *testing.T, seed uint64) *relayNemesis {
	t.Helper()
	s := newRelayBed(t, testserver.NewPostgres(t, nil))
	n := &relayNemesis{
		system: s, random: rand.New(rand.NewPCG(seed, 1<<32)), keys: stream.NewKeys("mythic:"), measured: map[string][]time.Duration{},
	}
	n.ledger = newRelayLedger(n.client, n.keys)
	for _, name := range []string{"relay a", "relay b", "relay c"} {
		n.relays = append(n.relays, s.newRelayProcess(name, &n.order))
	}
	n.writers = startRelayWriters(t, s.database, seed, 4)
	n.app = &app{writers: n.writers}
	t.Cleanup(n.app.close)
	n.probe()
	n.balance()
	return n
}

// newRelayBed makes both servers and the tables that the writers use. Rows stay in
// the outbox for some seconds, so that partitions are truncated under faults too.
func newRelayBed(t *testing.T, server *testserver.Postgres) *system {
	t.Helper()
	// Redis never rewrites its log, so that it can be cut where it was at a balance.
	s := &system{t: t, server: server, database: server.Database(t), redis: testserver.NewRedis(t, "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")}
	s.settings = map[string]string{
		"RUN_STATUS_TTL": "1", "USER_BOOKS_TTL": "1", "REDIS_CACHE_TTL": "1", "STALE_FOR": "1", "OUTBOX_RETENTION": relayRetains.String(), "LOG_LEVEL": "info",
		"GORACE": endAtOnce,
	}
	s.client, s.conn = s.redis.Client(t), s.connect()
	s.exec(migrations.DemoTables())
	s.exec(relayTables)
	s.command("migrate", "up")
	return s
}

// meet causes a fault in the middle of the load, and waits for what is written next.
func (n *relayNemesis) meet(f fault[*relayNemesis]) {
	n.t.Helper()
	n.moment()
	started := time.Now()
	f.cause(n)
	caused := time.Now()
	n.probe()
	n.measured["until the next entry after: "+f.name] = append(n.measured["until the next entry after: "+f.name], time.Since(caused))
	n.t.Logf("%-40s %6s, entries again after %6s", f.name, caused.Sub(started).Round(time.Millisecond), time.Since(caused).Round(time.Millisecond))
}

// moment lets the relays work for a random while, to meet a fault wherever they are.
func (n *relayNemesis) moment() { n.hold(0, 150*time.Millisecond) }

// hold lets a state last for a random while.
func (n *relayNemesis) hold(from, to time.Duration) {
	time.Sleep(from + time.Duration(n.random.Int64N(int64(to-from))))
}

// probe publishes an event and waits until it is in its stream.
func (n *relayNemesis) probe() {
	n.t.Helper()
	subject := fmt.Sprintf("probe%d", n.writers.number())
	n.publish(subject, 1, 10)
	testserver.Eventually(n.t, "what is written next arrives", func() error {
		last, err := n.client.XRevRangeN(n.t.Context(), n.keys.Topic("probe"), "+", "-", 3).Result()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(last, func(x redis.XMessage) bool { return x.Values["subject"] == subject }) {
			return nil
		}
		return fmt.Errorf("%s is not among the last of %d", subject, len(last))
	})
}

// publish commits events whose data has some bytes each.
func (n *relayNemesis) publish(subject string, count, size int) {
	n.t.Helper()
	testserver.Eventually(n.t, "events are committed", func() error {
		t := n.app.transact(n.t.Context(), pgx.ReadCommitted, false, func(tx pgx.Tx, t *transaction) error {
			return t.publishMany(n.t.Context(), tx, "probe.sent", subject, count, size)
		})
		if t.fate != committed {
			return errors.New("not yet")
		}
		return nil
	})
}

// balance has the writers pause, waits until the relay has caught up, and compares.
func (n *relayNemesis) balance() {
	n.t.Helper()
	n.writers.gate.Lock()
	defer n.writers.gate.Unlock()
	started := time.Now()
	n.probe()
	ctx := n.t.Context()
	done, err := n.writers.take()
	if err != nil {
		n.t.Fatalf("the app's writes must not suffer: %v", err)
	}
	conn, err := pgx.Connect(ctx, n.database)
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close(ctx)
	r, err := readRound(ctx, conn, done)
	if err != nil {
		n.t.Fatal(err)
	}
	r.resends, r.wiped = n.resends, n.wiped
	entries, err := n.ledger.entries(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	if wrong := n.ledger.weigh(r, entries); len(wrong) > 0 {
		n.t.Fatalf("of %d transactions and %d entries, everything sent again %d times:\n%s", len(done), len(entries), n.resends, wrong)
	}
	if err := n.ledger.close(ctx, r, entries); err != nil {
		n.t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, `TRUNCATE witness`); err != nil {
		n.t.Fatal(err)
	}
	n.count(r, entries)
	n.t.Logf("balanced %d transactions and %d entries, sent again %d times, in %s", len(done), len(entries), n.resends, time.Since(started).Round(time.Millisecond))
	if n.written, err = n.redis.Written(); err != nil {
		n.t.Fatal(err)
	}
	n.resends, n.wiped = 0, false
}

func (n *relayNemesis) count(r *relayRound, entries []ledgerEntry) {
	c := &n.counted
	c.entries += len(entries)
	c.unknown += r.unknown
	if r.truncated {
		c.truncated++
	}
	for _, t := range r.done {
		if t.fate != committed {
			c.rolledBack++
			continue
		}
		c.committed++
		c.events += len(t.events)
		c.changes += len(t.changes)
	}
}

// report logs what was met and measured.
func (n *relayNemesis) report() {
	c := n.counted
	n.t.Logf("%d transactions committed with %d events and %d changes of keys, %d were rolled back, the fate of %d was settled later; %d entries; rows were truncated before %d balances",
		c.committed, c.events, c.changes, c.rolledBack, c.unknown, c.entries, c.truncated)
	names := make([]string, 0, len(n.measured))
	for name := range n.measured {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		all := n.measured[name]
		slices.Sort(all)
		at := func(of int) time.Duration { return all[(len(all)*of+99)/100-1].Round(time.Millisecond) }
		n.t.Logf("%-75s %4d times: median %6s, 90%% %6s, worst %6s", name, len(all), at(50), at(90), at(100))
	}
}

// leader is the process that leads, as soon as another stands by.
func (n *relayNemesis) leader() *relayProcess {
	n.t.Helper()
	var leader *relayProcess
	testserver.Eventually(n.t, "one leads and another stands by", func() error {
		found, waiting := n.roles()
		if found == nil || waiting == 0 {
			return fmt.Errorf("one leads: %t, %d stand by", found != nil, waiting)
		}
		leader = found
		return nil
	})
	return leader
}

// roles are who said last that it leads, if it has said no other since, and how many
// stand by.
func (n *relayNemesis) roles() (leader *relayProcess, waiting int) {
	var last int64
	for _, p := range n.relays {
		led, standsBy := p.log.role()
		if led > last {
			leader, last = p, led
		}
		if standsBy {
			waiting++
		}
	}
	return leader, waiting
}

// takeover takes the lead from its owner in some way, and measures how long it is
// until what is written next arrives.
func (n *relayNemesis) takeover(how string, take func()) {
	n.t.Helper()
	started := time.Now()
	take()
	n.probe()
	n.tookOver(how, time.Since(started))
}

func (n *relayNemesis) tookOver(how string, took time.Duration) {
	n.t.Helper()
	if took > takeoverBound {
		n.t.Errorf("%s: another took over after %s", how, took)
	}
	n.measured["takeover, "+how] = append(n.measured["takeover, "+how], took)
}

// anew does what makes the relay send everything retained again, and waits until it
// has begun to. It makes the position anew then, without a field that it does not know.
func (n *relayNemesis) anew(cause func()) {
	n.t.Helper()
	const field = "nemesis"
	n.resends++
	if err := n.client.HSet(n.t.Context(), n.keys.Position(), field, "1").Err(); err != nil {
		n.t.Fatal(err)
	}
	cause()
	testserver.Eventually(n.t, "the relay begins anew", func() error {
		fields, err := n.client.HGetAll(n.t.Context(), n.keys.Position()).Result()
		if err != nil {
			return err
		}
		if fields[field] != "" || fields["position"] == "" {
			return fmt.Errorf("the position is %v", fields)
		}
		return nil
	})
}

// confirmed waits until the relay says that this Redis lacks nothing: before that
// nobody serves an entry as fresh.
func (n *relayNemesis) confirmed() {
	n.t.Helper()
	info, err := n.client.InfoMap(n.t.Context(), "server").Result()
	n.must(err)
	testserver.Eventually(n.t, "the run of Redis is confirmed", func() error {
		said, err := n.client.HGet(n.t.Context(), n.keys.Position(), producers.PositionRunID).Result()
		if err == nil && said != info["Server"]["run_id"] {
			err = fmt.Errorf("%s is, not %s", said, info["Server"]["run_id"])
		}
		return err
	})
}

// sql has the database do something, as soon as it takes connections.
func (n *relayNemesis) sql(query string) {
	n.t.Helper()
	testserver.Eventually(n.t, query, func() error {
		conn, err := pgx.Connect(n.t.Context(), n.database)
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		_, err = conn.Exec(n.t.Context(), query)
		return err
	})
}

// askRelayBed returns the one value that a query gives, on a connection of its own:
// the servers go and come.
func askRelayBed[T any](n *relayNemesis, query string) (value T, err error) {
	conn, err := pgx.Connect(n.t.Context(), n.database)
	if err != nil {
		return value, err
	}
	defer conn.Close(context.Background())
	err = conn.QueryRow(n.t.Context(), query).Scan(&value)
	return value, err
}

func (n *relayNemesis) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}
