package stream_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// Whatever vanishes under a reading consumer, what is written afterwards is read.
func TestVanishedStreamsAndGroupsComeBack(t *testing.T) {
	for name, vanish := range map[string]func(ctx context.Context, w *world) error{
		"flushall":        func(ctx context.Context, w *world) error { return w.client.FlushAll(ctx).Err() },
		"del of a stream": func(ctx context.Context, w *world) error { return w.client.Del(ctx, w.keys.Topic("books")).Err() },
		"group destroyed": func(ctx context.Context, w *world) error {
			return w.client.XGroupDestroy(ctx, w.keys.Topic("books"), "g").Err()
		},
		"scripts forgotten": func(ctx context.Context, w *world) error { return w.client.ScriptFlush(ctx).Err() },
		"connections cut": func(ctx context.Context, w *world) error {
			return w.client.Do(ctx, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, l := newWorld(t), newLedger()
			r := w.consume(stream.ConsumerOptions{Topics: []string{"users", "books"}, Backoff: time.Millisecond},
				func(ctx context.Context, batch []*message.Message) []error {
					errs := make([]error, len(batch))
					for i, m := range batch {
						if entry, _ := stream.EntryOf(m); entry.Deliveries == 1 {
							errs[i] = errFails // so that each is parked once
							continue
						}
						l.note(m)
					}
					return errs
				})
			w.ready(r)
			w.append(changed("books", 20)...)
			w.await(l, 20)
			for round := range 3 {
				if err := vanish(t.Context(), w); err != nil {
					t.Fatal(err)
				}
				events := changed("books", 40)[20:]
				for i := range events {
					events[i].ID += fmt.Sprintf(" of round %d", round)
				}
				w.append(events...)
				w.await(l, 20+20*(round+1))
			}
			w.settled("g", "books")
			w.settled("g", "users")
		})
	}
}

func TestRestartOfRedis(t *testing.T) {
	for name, stop := range map[string]func(w *world){
		"stopped": func(w *world) { w.server.Stop() },
		"killed":  func(w *world) { w.server.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			w, l := newWorld(t, "--appendfsync", "always"), newLedger()
			r := w.consume(stream.ConsumerOptions{BatchSize: 7}, l.handle)
			w.append(changed("books", 500)...)
			w.await(l, 50)
			stop(w)
			if err := w.server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.append(changed("books", 1000)[500:]...)
			w.await(l, 1000)
			w.settled("g", "books")
			w.ready(r)
		})
	}
}

// A consumer that starts before Redis says so, waits, and becomes ready.
func TestRedisComesLater(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 1)...)
	w.server.Stop()
	r := w.consume(stream.ConsumerOptions{}, l.handle)
	if r.Ready() == nil {
		t.Error("ready without Redis")
	}
	if err := w.server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.ready(r)
	w.await(l, 1)
}

// Out of memory, what is done is still acknowledged, and what fails is neither
// lost nor does it stop the consumer.
func TestOutOfMemory(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 100)...)
	w.readAs("nobody", 1) // the group is there, and one entry is another's
	if err := w.client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	var full atomic.Bool
	full.Store(true)
	w.consume(stream.ConsumerOptions{BatchSize: 10, ClaimAfter: 100 * time.Millisecond, Backoff: time.Millisecond, MaxDeliveries: 1000},
		func(ctx context.Context, batch []*message.Message) []error {
			errs := make([]error, len(batch))
			for i, m := range batch {
				if m.UUID == "books-42" && full.Load() {
					errs[i] = errFails
					continue
				}
				l.note(m)
			}
			return errs
		})
	w.await(l, 99)
	testserver.Eventually(t, "all but one acknowledged", func() error {
		if p, err := w.client.XPending(t.Context(), w.keys.Topic("books"), "g").Result(); err != nil || p.Count != 1 {
			return fmt.Errorf("%+v, %w", p, errors.Join(err, errFails))
		}
		return nil
	})
	full.Store(false)
	if err := w.client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	w.await(l, 100)
	w.settled("g", "books")
}
