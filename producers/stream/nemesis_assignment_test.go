package stream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/producers"
	"mythiccache/producers/stream"
)

// asProcess in the environment turns the test binary into a worker or a relay, as
// an assignment in JSON says, so that a test can start, stop and kill it.
const asProcess = "MYTHIC_STREAM_TEST_AS"

// assignment is what such a process is to do.
type assignment struct {
	Worker     string // what the ledger calls it; empty for a relay
	Name       string // of its consumers; random where empty
	Prefix     string // of the keys
	Redis      string // URL
	Postgres   string // URL, for a relay
	Ledger     string // URL, for a worker
	ClaimAfter time.Duration
	Timeout    time.Duration
	Forgetful  bool // it leaves out notes, to see that somebody notices
}

// readyLine is what a process prints once it does its work.
const readyLine = "ready"

// runAssigned is the whole life of a process and returns its exit status. It fails
// where goroutines stay behind.
func runAssigned(text string) int {
	var a assignment
	err := json.Unmarshal([]byte(text), &a)
	if err == nil {
		err = a.run()
	}
	if err == nil {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (a assignment) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if a.Worker == "" {
		return a.relay(ctx)
	}
	return a.work(ctx)
}

func (a assignment) keys() stream.Keys { return stream.NewKeys(a.Prefix) }

// dial makes clients as the program does.
func (a assignment) dial(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
	o, err := redis.ParseURL(a.Redis)
	if err != nil {
		return nil, err
	}
	o.OnConnect = onConnect
	o.ContextTimeoutEnabled, o.DisableIdentity = true, true
	o.DialTimeout, o.PoolTimeout, o.DialerRetries = 2*time.Second, 2*time.Second, 1
	return redis.NewClient(o), nil
}

// tellReady prints a line once all are ready.
func (a assignment) tellReady(ctx context.Context, ready []func() error) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for left := ready; len(left) > 0; {
		if left[0]() == nil {
			left = left[1:]
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	_, err := fmt.Fprintln(os.Stdout, readyLine)
	return err
}

// relay is what a relay's process does until ctx ends.
func (a assignment) relay(ctx context.Context) error {
	views, err := view.Parse("views.yaml", view.Mythic(), nil)
	if err != nil {
		return err
	}
	r, err := producers.NewRelay(producers.RelayOptions{
		URL: a.Postgres, Dial: a.dial, Keys: a.keys(), Views: views, Fences: noFences{},
		Log: zerolog.New(os.Stderr).Level(zerolog.WarnLevel),
	})
	if err != nil {
		return err
	}
	if err := a.tellReady(ctx, nil); err != nil {
		return err
	}
	return r.Run(ctx)
}

// noFences stand in for a cache, which nobody reads here.
type noFences struct{}

func (noFences) FenceAll(context.Context, version.Version) error             { return nil }
func (noFences) FenceViews(context.Context, []string, version.Version) error { return nil }
func (noFences) EnsureViews(context.Context, version.Version) error          { return nil }
