package stream_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

// How many faults TestStreamsNemesis causes, and what it draws them by.
const (
	nemesisFaultsWanted = "NEMESIS_FAULTS"
	nemesisSeed         = "NEMESIS_SEED"
)

// Any fault of workers, of Redis or of the ways to it, in any order and under load:
// each group handles each event that the outbox or Redis has said to have, poison
// ends in the dead letters and nothing else does, and nothing stays behind.
func TestStreamsNemesis(t *testing.T) {
	t.Parallel()
	faults, seed := nemesisNumber(t, nemesisFaultsWanted, 0), nemesisNumber(t, nemesisSeed, rand.IntN(1_000_000_000))
	postgres := testserver.NewPostgres(t, nil)
	met := newRecord()
	if faults == 0 {
		runNemesis(t, postgres, seed, 0, met)
		met.log(t)
		return
	}
	// The long form begins anew every dozen faults or so: else there would be ever
	// more to send again.
	const few = 14
	for ; faults > 0; faults, seed = faults-few, seed+1 {
		if !t.Run(fmt.Sprintf("%s=%d", nemesisSeed, seed), func(t *testing.T) { runNemesis(t, postgres, seed, min(few, faults), met) }) {
			break
		}
	}
	met.log(t)
}

// runNemesis causes some faults, demands that nothing is wrong, and adds what it met.
func runNemesis(t *testing.T, postgres *testserver.Postgres, seed, faults int, met *record) {
	t.Helper()
	t.Logf("%s=%d", nemesisSeed, seed)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again with %s=%d %s=%d", nemesisSeed, seed, nemesisFaultsWanted, faults)
		}
	})
	n := newNemesis(t, postgres, seed)
	n.startWorkers(3, assignment{ClaimAfter: nemesisClaimAfter, Timeout: nemesisTimeout})
	n.startSources()
	for _, d := range drawFaults(seed, faults) {
		n.meet(d)
	}
	n.strewPoison(draw{}) // whose dead letters nothing takes away
	n.settle()
	n.balance()
	n.stopAll()
	n.ledger.record(n.met)
	met.add(n.met)
}

// A deploy of processes under load, with failures and panics, hands everything over:
// nothing is lost and nothing comes twice.
func TestRollingRestartOfProcessesRepeatsNothing(t *testing.T) {
	t.Parallel()
	n := newNemesis(t, nil, 1)
	n.startWorkers(4, assignment{ClaimAfter: 10 * time.Second, Timeout: time.Minute}) // the machine may be slow
	n.startSources()
	for range 2 {
		n.publishAll(wellBehaved, 300)
		n.publishAll(late, 20)
		n.restartWorkers(draw{})
	}
	n.settle()
	n.balance()
	n.stopAll()
	if n.ledger.record(n.met); len(n.met.repeats) > 0 {
		t.Errorf("of %d events, repeats: %v", n.met.events, n.met.repeats)
	}
}

// The ledger itself finds what a worker forgets.
func TestTheStreamsLedgerFindsWhatIsForgotten(t *testing.T) {
	t.Parallel()
	n := newNemesis(t, nil, 1)
	n.startWorkers(1, assignment{ClaimAfter: nemesisClaimAfter, Timeout: nemesisTimeout, Forgetful: true})
	n.publishAll(wellBehaved, 50)
	n.idle()
	if wrong := n.weigh(); len(wrong[wrongLost]) == 0 || len(wrong) != 1 {
		t.Errorf("events are to be missing, and what is wrong is: %s", wrong)
	}
	n.stopAll()
}

func nemesisNumber(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
