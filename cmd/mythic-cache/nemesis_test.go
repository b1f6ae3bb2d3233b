package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// nemesis is two processes of each role over one PostgreSQL and one Redis, which nobody
// else uses, and those who write and read meanwhile. NEMESIS_FAULTS and NEMESIS_SEED are
// what they are for the relays.
type nemesis struct {
	*system
	random                *rand.Rand
	keys                  stream.Keys
	users                 []string // whose books are made, moved and deleted
	relays, workers, apis []*member
	promises              *promises
}

// shortFor is how long the short form lasts at least: again and again one fault of each
// kind.
const shortFor = time.Minute

// Any fault of any process, of either server or of the ways to them, in any order and
// under load: no reader is ever given what is older than it has been promised, and in
// the end each answer is what SQL says, from the cache too, and no audit has found
// anything wrong.
func TestNemesis(t *testing.T) {
	t.Parallel()
	faults, seed := number(t, nemesisFaults, 0), number(t, nemesisSeed, rand.Uint64()>>1)
	t.Logf("%s=%d", nemesisSeed, seed)
	n := newNemesis(t, seed)
	n.promises = n.startPromises()
	left := deal(faultsOfAll(), n.random, int(faults))
	for begun := time.Now(); len(left) > 0 || faults == 0 && time.Since(begun) < shortFor; {
		if len(left) == 0 {
			left = deal(faultsOfAll(), n.random, 0)
		}
		few := min(len(left), 1+n.random.IntN(4))
		// What a late load brings, no later write shall cover up.
		if at := slices.IndexFunc(left[:few], func(f fault[*nemesis]) bool { return f.kind == lateLoads }); at >= 0 {
			few = at + 1
		}
		for _, f := range left[:few-1] {
			n.meet(f)
		}
		n.balance(left[few-1])
		left = left[few:]
	}
	n.promises.stop()
	t.Log(n.promises.report())
	n.asSQLSays()
	if out, err := n.try("verify", "--all"); err != nil || !strings.Contains(out, `"wrong": 0`) {
		t.Errorf("verify: %v\n%s", err, out)
	}
	n.everythingExpires()
	for _, p := range n.members() {
		p.stop()
	}
}

func newNemesis(t *testing.T, seed uint64) *nemesis {
	t.Helper()
	server := testserver.NewPostgres(t, nil)
	// Redis never rewrites its log, so that its end can be cut off.
	s := &system{t: t, server: server, database: server.Database(t), redis: testserver.NewRedis(t, "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")}
	s.settings = map[string]string{"LOG_LEVEL": "info", "GORACE": endAtOnce, "AUDIT_RATE": "100"}
	s.client, s.conn = s.redis.Client(t), s.connect()
	s.command("demo", "load")
	s.command("migrate", "up")
	n := &nemesis{system: s, random: rand.New(rand.NewPCG(seed, 2<<32)), keys: stream.NewKeys("mythic:"), users: names(10)}
	n.people(n.users...)
	n.counting(countedUsers()...)
	for i := range 2 {
		n.relays = append(n.relays, s.newMember("relay", i))
		n.workers = append(n.workers, s.newMember("workers", i))
		n.apis = append(n.apis, s.newMember("api", i))
	}
	for _, api := range n.apis {
		n.served(api)
	}
	return n
}

func (n *nemesis) members() []*member { return slices.Concat(n.relays, n.workers, n.apis) }

// meet causes a fault in the middle of the load.
func (n *nemesis) meet(f fault[*nemesis]) {
	n.t.Helper()
	started := time.Now()
	f.cause(n)
	n.t.Logf("%s  %-40s %6s", started.Format("15:04:05.000"), f.name, time.Since(started).Round(time.Millisecond))
	n.moment()
	n.must(n.promises.judge())
}

// balance has the writers pause in the middle of a fault, and waits until every answer
// is what SQL says: what the fault leaves behind, no later write mends.
func (n *nemesis) balance(f fault[*nemesis]) {
	n.t.Helper()
	var pausing sync.WaitGroup
	in := time.Duration(n.random.Int64N(int64(500 * time.Millisecond)))
	pausing.Go(func() {
		time.Sleep(in)
		n.promises.gate.Lock()
	})
	defer func() { // also where the test ends here
		pausing.Wait()
		n.promises.gate.Unlock()
	}()
	n.meet(f)
	pausing.Wait()
	n.asSQLSays()
}

// asSQLSays waits until every answer is, while nobody writes, and demands that nothing
// has been wrong so far.
func (n *nemesis) asSQLSays() {
	n.t.Helper()
	started := time.Now()
	for _, api := range n.apis {
		n.served(api)
	}
	for _, p := range n.members() {
		p.examine()
	}
	n.must(n.promises.judge())
	n.t.Logf("%s  all is as SQL says after %s", started.Format("15:04:05.000"), time.Since(started).Round(time.Millisecond))
}

// served waits until an API answers from the cache what SQL says.
func (n *nemesis) served(api *member) {
	n.t.Helper()
	n.base = api.base
	n.conn.Close(context.Background())
	testserver.Eventually(n.t, "PostgreSQL takes connections", func() error {
		conn, err := pgx.Connect(n.t.Context(), n.database)
		if err == nil {
			n.conn = conn
		}
		return err
	})
	testserver.Eventually(n.t, api.name+" is ready", func() error {
		a, err := n.tryRequest(http.MethodGet, "/readyz", "", nil, nil)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})
	n.cached(slices.Concat(n.users, countedUsers())...)
}

// moment lets the system work for a random while, to meet a fault wherever it
// is: there is no signal for "at random".
func (s *system) moment() { time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond) }
