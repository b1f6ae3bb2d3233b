package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// feed is what Consumer and Subscriber share: it brings the entries of a group's
// topics from four sources (new ones, one's own that are pending, those of dead
// consumers, parked ones that are due) to deliver, keeps alive what is in flight,
// and settles what was handled.
type feed struct {
	client redis.UniversalClient
	keys   Keys
	o      feedOptions

	slots   slots
	room    func() int                                // how many entries to bring at once, now that a slot is free
	deliver func(ctx context.Context, ds []*delivery) // hands over, or hands back what ctx's end leaves over

	conns  *connections
	flight *flight
	gate   gate
	parked chan struct{} // holds a token when something was parked here
	take   *redis.Script
	answer answer // to reads that do not wait

	claimFailed atomic.Bool // the last claim of a topic

	lost atomic.Int64 // calls of the handler that were given up and still hold a slot

	mu  sync.Mutex
	err error // what is in the way of reading
}

type feedOptions struct {
	group, name   string
	topics        []string
	events        bool // what is no event is malformed
	batchSize     int
	timeout       time.Duration
	maxDeliveries int
	backoff       time.Duration
	claimAfter    time.Duration
	grace         time.Duration
	log           zerolog.Logger
	metrics       *metrics
}

// readBlock is how long a read waits for entries. Nothing waits for it to end:
// new entries and shutdown end it at once.
const readBlock = 2 * time.Second

func (o *feedOptions) check() error {
	if o.group == "" {
		return errors.New("a consumer needs a group")
	}
	if len(o.topics) == 0 {
		return fmt.Errorf("group %s has no topics", o.group)
	}
	for name, n := range map[string]int64{
		"BatchSize": int64(o.batchSize), "Timeout": int64(o.timeout), "MaxDeliveries": int64(o.maxDeliveries),
		"Backoff": int64(o.backoff), "ClaimAfter": int64(o.claimAfter), "Grace": int64(o.grace),
	} {
		if n < 0 {
			return fmt.Errorf("group %s: %s is negative", o.group, name)
		}
	}
	if o.name == "" {
		o.name = watermill.NewShortUUID()
	}
	orElse(&o.batchSize, 500)
	orElse(&o.timeout, time.Minute)
	orElse(&o.maxDeliveries, 8)
	orElse(&o.backoff, time.Second)
	orElse(&o.claimAfter, 5*time.Second)
	orElse(&o.grace, 20*time.Second)
	return nil
}

func orElse[T int | time.Duration](value *T, otherwise T) {
	if *value == 0 {
		*value = otherwise
	}
}

func newFeed(dial Dial, keys Keys, inFlight int, o feedOptions) (*feed, error) {
	f := &feed{
		keys: keys, o: o,
		slots:  make(slots, inFlight),
		conns:  newConnections(),
		flight: newFlight(),
		parked: make(chan struct{}, 1),
		take:   newScript(takeSource),
		err:    errors.New("not started"),
	}
	f.o.log = o.log.With().Str("group", o.group).Str("consumer", o.name).Logger()
	var err error
	if f.client, err = dial(f.conns.onConnect); err != nil {
		return nil, fmt.Errorf("dial redis for group %s: %w", o.group, err)
	}
	return f, nil
}

// errStopped is in the way of reading once a feed has ended.
var errStopped = errors.New("stopped")

// ready returns what is in the way of reading.
func (f *feed) ready() error {
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if n := f.lost.Load(); err == nil && n > 0 && n == int64(cap(f.slots)) {
		err = fmt.Errorf("%w: all %d of them", errHangs, n)
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("group %s of %s: %w", f.o.group, strings.Join(f.o.topics, ", "), err)
}

// report notes whether reading goes on, and logs when that changes.
func (f *feed) report(err error) {
	f.mu.Lock()
	before := f.err
	f.err = err
	f.mu.Unlock()
	switch {
	case errors.Is(err, errStopped):
		f.o.log.Info().Strs("topics", f.o.topics).Msg("stopped reading the streams")
	case err != nil && (before == nil || before.Error() != err.Error()):
		f.o.log.Warn().Err(err).Msg("cannot read the streams")
	case err == nil && before != nil:
		f.o.log.Info().Strs("topics", f.o.topics).Msg("reading the streams")
	}
}

// run brings entries until ctx ends. Then, in order: no more reads; what no
// handler has is handed back; wait returns when the handlers are done; the group
// is left and the client closed. What is in flight is kept alive meanwhile.
func (f *feed) run(ctx context.Context, wait func()) {
	alive, dead := context.WithCancel(context.WithoutCancel(ctx))
	var keeping, sources sync.WaitGroup
	keeping.Go(func() { f.keepAlive(alive) })
	sources.Go(func() { f.read(ctx) })
	sources.Go(func() { f.claim(ctx) })
	sources.Go(func() { f.promote(ctx) })
	sources.Wait()
	wait()
	dead()
	keeping.Wait()
	f.leave(context.WithoutCancel(ctx))
	f.report(errStopped)
}

// start takes a slot for a call of the handler, once the gate is open: in that
// order, since the call that held the slot before may have closed it. It is false
// once ctx has ended.
func (f *feed) start(ctx context.Context) bool {
	if !f.slots.take(ctx) {
		return false
	}
	if !f.gate.wait(ctx) {
		f.slots.give()
		return false
	}
	return true
}

// lives returns the contexts that outlive ctx on shutdown: that of the handlers,
// which ends Grace after ctx, and that of settling what they did, a little later.
func (f *feed) lives(ctx context.Context) (handling, settling context.Context, stop func()) {
	handling, endHandling := context.WithCancel(context.WithoutCancel(ctx))
	settling, endSettling := context.WithCancel(context.WithoutCancel(ctx))
	var later []*time.Timer
	var mu sync.Mutex
	end := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		later = append(later, time.AfterFunc(f.o.grace, endHandling), time.AfterFunc(f.o.grace+settleGrace, endSettling))
	})
	return handling, settling, func() {
		end()
		endHandling()
		endSettling()
		mu.Lock()
		defer mu.Unlock()
		for _, timer := range later {
			timer.Stop()
		}
	}
}

// settleGrace is what is left for acknowledgements once handlers were told to end.
const settleGrace = 3 * time.Second

// leave takes the consumer out of the group where nothing is pending for it, and
// closes the client.
func (f *feed) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleGrace)
	defer cancel()
	f.dismiss(ctx, f.o.name)
	if err := f.client.Close(); err != nil {
		f.o.log.Debug().Err(err).Msg("closing the redis client failed")
	}
}

// dismiss takes consumers out of the group where nothing is pending for them.
// Failing does no harm: an idle consumer is a name in a list.
func (f *feed) dismiss(ctx context.Context, names ...any) {
	if err := f.client.Eval(ctx, leaveScript, f.streams(), append([]any{f.o.group}, names...)...).Err(); err != nil {
		f.o.log.Debug().Err(err).Msg("leaving the group failed")
	}
}

// streams returns the names of the topics' streams.
func (f *feed) streams() []string {
	names := make([]string, len(f.o.topics))
	for i, topic := range f.o.topics {
		names[i] = f.keys.Topic(topic)
	}
	return names
}

// createGroups makes the group of every topic, at the start of its stream: never
// at its end, since that loses what was written meanwhile.
func (f *feed) createGroups(ctx context.Context) error {
	pipe := f.client.Pipeline()
	cmds := make([]*redis.StatusCmd, len(f.o.topics))
	for i, stream := range f.streams() {
		cmds[i] = pipe.XGroupCreateMkStream(ctx, stream, f.o.group, "0")
	}
	execute(ctx, pipe)
	for i, cmd := range cmds {
		switch err := cmd.Err(); {
		case err == nil:
			f.o.log.Info().Str("topic", f.o.topics[i]).Msg("group created")
		case strings.HasPrefix(err.Error(), "OOM"):
			// Redis says so even of a group that exists, and only who reads on
			// makes room. Where it does not exist, the read says so.
		case !strings.HasPrefix(err.Error(), "BUSYGROUP"):
			return fmt.Errorf("create group in %s: %w", f.o.topics[i], err)
		}
	}
	return nil
}
