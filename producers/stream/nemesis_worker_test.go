package stream_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// nemesisGroups are the groups of every worker. The first has a batch handler, the
// others run through watermill's Router.
func nemesisGroups() map[string][]string {
	return map[string][]string{groupBatch: nemesisTopics(), "router": nemesisTopics(), "notes": {"note"}}
}

func nemesisTopics() []string { return []string{"note", "order"} }

const groupBatch = "batch"

// How events are handled; the subject of each begins with one of these.
const (
	wellBehaved = "ok"
	late        = "late"   // takes its time
	fails       = "fail"   // the first two times
	sulks       = "sulk"   // takes its time, and fails the first two times
	panics      = "panic"  // the first two times
	pauses      = "pause"  // as long as it is young
	hangs       = "hang"   // the first time, until it is told to end
	deaf        = "deaf"   // the first time it goes on for long, and hears nothing
	rejects     = "reject" // fails once and is then rejected
)

// How long the slow take.
const (
	lateFor = 30 * time.Millisecond
	sulkFor = 200 * time.Millisecond
	hangFor = 10 * time.Minute        // or until it is told to end
	deafFor = 2500 * time.Millisecond // more than a call may take before it is given up
	young   = 300 * time.Millisecond
)

// work is what a worker's process does until ctx ends.
func (a assignment) work(ctx context.Context) error {
	log := zerolog.New(os.Stderr).Level(zerolog.WarnLevel)
	scribe := newScribe(a.Ledger, a.Worker)
	defer scribe.client.CloseIdleConnections()
	var parts errgroup.Group
	var calls sync.WaitGroup // of handlers; those that were given up end too
	defer calls.Wait()
	var ready []func() error
	var running []chan struct{}
	for group, topics := range nemesisGroups() {
		h := &nemesisHandler{scribe: scribe, calls: &calls, group: group, forgetful: a.Forgetful}
		if group == groupBatch {
			c, err := stream.NewConsumer(a.dial, a.keys(), h.handle, stream.ConsumerOptions{
				Group: group, Name: a.Name, Topics: topics, BatchSize: 20, Concurrency: 3,
				Timeout: a.Timeout, ClaimAfter: a.ClaimAfter,
				MaxDeliveries: deliveriesMost, Backoff: nemesisBackoff, Grace: nemesisGrace, Log: log,
			})
			if err != nil {
				return err
			}
			ready = append(ready, c.Ready)
			parts.Go(func() error { return c.Run(ctx) })
			continue
		}
		s, err := stream.NewSubscriber(a.dial, a.keys(), stream.SubscriberOptions{
			Group: group, Name: a.Name, BatchSize: 20, InFlight: 40,
			Timeout: a.Timeout, ClaimAfter: a.ClaimAfter,
			MaxDeliveries: deliveriesMost, Backoff: nemesisBackoff, Grace: nemesisGrace, Log: log,
		})
		if err != nil {
			return err
		}
		router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 2 * nemesisGrace}, stream.ZerologAdapter(log))
		if err != nil {
			return err
		}
		router.AddMiddleware(stream.RecordFailure)
		for _, topic := range topics {
			router.AddConsumerHandler(group+":"+topic, topic, s, func(m *message.Message) error {
				return h.handle(m.Context(), []*message.Message{m})[0]
			})
		}
		ready, running = append(ready, s.Ready), append(running, router.Running())
		parts.Go(func() error { return errors.Join(router.Run(ctx), s.Close()) })
	}
	parts.Go(func() error {
		for _, r := range running {
			select {
			case <-r:
			case <-ctx.Done():
				return nil
			}
		}
		return a.tellReady(ctx, ready)
	})
	return parts.Wait()
}

// What all groups of a worker have in common.
const (
	deliveriesMost = 1000 // no failure of ours, and no fault, makes an event a dead letter
	nemesisBackoff = 20 * time.Millisecond
	nemesisGrace   = 6 * time.Second // more than the slowest handler takes
)

// nemesisHandler does with each event what its subject says.
type nemesisHandler struct {
	scribe    *scribe
	calls     *sync.WaitGroup
	group     string
	forgetful bool // it leaves out notes, as a handler does that loses events
}

// errNotYet is the failure of an event that succeeds later.
var errNotYet = errors.New("not this time")

// handle is a BatchHandler. Whatever is done is noted before it answers. It panics
// before it has done anything, since all of the batch come again.
func (h *nemesisHandler) handle(ctx context.Context, batch []*message.Message) []error {
	h.calls.Add(1)
	defer h.calls.Done()
	errs := make([]error, len(batch))
	var done, slowly []string
	var wait time.Duration
	for _, m := range batch {
		if e, err := stream.EventOf(m); err == nil && conduct(e) == panics && deliveries(m) < 3 {
			panic("as the event has it")
		}
	}
	for i, m := range batch {
		e, slow, err := judge(m)
		errs[i] = err
		wait = max(wait, slow)
		switch {
		case err != nil:
		case slow > 0:
			slowly = append(slowly, e.ID)
		default:
			done = append(done, e.ID)
		}
	}
	told := h.note(done)
	if wait == hangFor {
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	} else {
		time.Sleep(wait) // the work
	}
	if told = errors.Join(told, h.note(slowly)); told != nil {
		return slices.Repeat([]error{told}, len(batch))
	}
	return errs
}

func (h *nemesisHandler) note(ids []string) error {
	if h.forgetful {
		ids = slices.DeleteFunc(ids, func(id string) bool { return strings.HasSuffix(id, "7") })
	}
	if len(ids) == 0 {
		return nil
	}
	return h.scribe.note(h.group, ids)
}

// judge says how an event is handled: how long it takes, and how it ends.
func judge(m *message.Message) (e event.Event, slow time.Duration, err error) {
	if e, err = stream.EventOf(m); err != nil {
		return e, 0, err
	}
	if !strings.HasSuffix(e.Type, ".written") {
		return e, 0, fmt.Errorf("%w: unknown type %s", stream.ErrReject, e.Type)
	}
	entry, _ := stream.EntryOf(m)
	switch n := deliveries(m); conduct(e) {
	case late:
		return e, lateFor, nil
	case fails:
		if n < 3 {
			return e, 0, errNotYet
		}
	case sulks:
		if n < 3 {
			return e, sulkFor, errNotYet
		}
	case pauses:
		if time.Since(entry.Added) < young {
			return e, 0, fmt.Errorf("%w: too early", stream.ErrPause)
		}
	case hangs:
		if n < 2 {
			return e, hangFor, context.DeadlineExceeded
		}
	case deaf:
		if n < 2 {
			return e, deafFor, nil
		}
	case rejects:
		if n < 2 {
			return e, 0, errNotYet
		}
		return e, 0, stream.ErrReject
	}
	return e, 0, nil
}

func conduct(e event.Event) string {
	how, _, _ := strings.Cut(e.Subject, "-")
	return how
}

func deliveries(m *message.Message) int {
	entry, _ := stream.EntryOf(m)
	return entry.Deliveries
}
