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
	if faults == 0 {
		runNemesis(t, postgres, seed, 0)
		return
	}
	// The long form begins anew every dozen faults or so: else there would be ever
	// more to send again.
	const few = 14
	for ; faults > 0; faults, seed = faults-few, seed+1 {
		if !t.Run(fmt.Sprintf("%s=%d", nemesisSeed, seed), func(t *testing.T) { runNemesis(t, postgres, seed, min(few, faults)) }) {
			return
		}
	}
}

func runNemesis(t *testing.T, postgres *testserver.Postgres, seed, faults int) {
	t.Helper()
	t.Logf("%s=%d", nemesisSeed, seed)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again with %s=%d %s=%d", nemesisSeed, seed, nemesisFaultsWanted, faults)
		}
	})
	n := newNemesis(t, postgres, seed)
	n.startWorkers(3, nemesisClaimAfter, false)
	n.startSources()
	for _, d := range drawFaults(seed, faults) {
		n.meet(d)
	}
	n.settle()
	n.report()
	n.balance()
	n.stopAll()
}

// A deploy of processes under load, with failures and panics, hands everything over:
// nothing is lost and nothing comes twice.
func TestRollingRestartOfProcessesRepeatsNothing(t *testing.T) {
	t.Parallel()
	n := newNemesis(t, nil, 1)
	n.startWorkers(4, 5*time.Second, false)
	n.startSources()
	for range 2 {
		n.publishAll(wellBehaved, 300)
		n.publishAll(late, 20)
		n.restartWorkers(draw{})
	}
	n.settle()
	n.balance()
	if _, times, repeats, _ := n.ledger.sums(); len(repeats) > 0 {
		t.Errorf("of %d events handled, repeats: %v", times, repeats)
	}
	n.stopAll()
}

// The ledger itself finds what a worker forgets.
func TestTheStreamsLedgerFindsWhatIsForgotten(t *testing.T) {
	t.Parallel()
	n := newNemesis(t, nil, 1)
	n.startWorkers(1, nemesisClaimAfter, true)
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
