package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// said is an event as a sender names it.
func said(source, id string) event.Event {
	return event.Event{ID: id, Source: source, Type: event.RunProgress, Subject: "RUN1"}
}

func TestAnEventIsAppendedOnce(t *testing.T) {
	w := newWorld(t)
	p := w.publisher(stream.PublisherOptions{})
	first, before, err := p.AppendOnce(t.Context(), said("app", "1"), said("app", "2"), said("app", "1"), said("other", "1"))
	if err != nil || !slices.Equal(before, []bool{false, false, true, false}) || first[2] != first[0] || first[3] == first[0] {
		t.Fatalf("%v %v %v", first, before, err)
	}
	again := said("app", "2")
	again.Type, again.Subject = event.RunFailed, "RUN2" // whatever it says
	second, before, err := p.AppendOnce(t.Context(), said("app", "3"), again, said("ap", "p1"), said("", "1"), said("app", ""))
	if err != nil || !slices.Equal(before, []bool{false, true, false, false, false}) || second[1] != first[1] {
		t.Fatalf("%v %v %v", second, before, err)
	}
	third, before, err := p.AppendOnce(t.Context(), said("", "1"), said("app", ""))
	if err != nil || before[0] || before[1] || third[0] == second[3] || third[1] == second[4] {
		t.Errorf("without a name: %v %v %v", third, before, err)
	}
	if n := w.client.XLen(t.Context(), w.keys.Topic("run")).Val(); n != 9 {
		t.Errorf("%d entries", n)
	}
	if ttl := w.client.PTTL(t.Context(), w.keys.Once("app", "1")).Val(); ttl <= stream.OnceFor-time.Minute || ttl > stream.OnceFor {
		t.Errorf("it is known for %s", ttl)
	}
}

// Fifty senders of the same twenty events, on publishers of their own.
func TestManySendersOfOneEvent(t *testing.T) {
	w := newWorld(t)
	const senders, events = 50, 20
	publishers := make([]*stream.Publisher, 5)
	for i := range publishers {
		publishers[i] = w.publisher(stream.PublisherOptions{})
	}
	var mu sync.Mutex
	entries, firsts := map[string]map[string]bool{}, map[string]int{}
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			for j := range events {
				id := strconv.Itoa((i + j) % events)
				ids, before, err := publishers[i%len(publishers)].AppendOnce(t.Context(), said("app", id))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if entries[id] == nil {
					entries[id] = map[string]bool{}
				}
				entries[id][ids[0]] = true
				if !before[0] {
					firsts[id]++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	for id, of := range entries {
		if len(of) != 1 || firsts[id] != 1 {
			t.Errorf("event %s: entries %v, %d firsts", id, of, firsts[id])
		}
	}
	if n := w.client.XLen(t.Context(), w.keys.Topic("run")).Val(); n != events {
		t.Errorf("%d entries", n)
	}
}

// The answer is lost on its way, so the sender sends again.
func TestALostAnswerIsNoSecondEvent(t *testing.T) {
	w := newWorld(t)
	link := newNemesisLink(t, w.server.Port)
	p, err := stream.NewPublisher(func(func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		o, err := redis.ParseURL(link.url)
		o.ContextTimeoutEnabled = true
		return redis.NewClient(o), err
	}, w.keys, stream.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, _, err := p.AppendOnce(t.Context(), said("app", "0")); err != nil { // so that the script is there
		t.Fatal(err)
	}
	link.suffer("timeout", "downstream", map[string]int{"timeout": 0})
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if ids, _, err := p.AppendOnce(short, said("app", "1"), said("app", "2")); err == nil {
		t.Fatalf("the answer came: %v", ids)
	}
	testserver.Eventually(t, "the events are in", func() error {
		if n := w.client.XLen(t.Context(), w.keys.Topic("run")).Val(); n != 3 {
			return fmt.Errorf("%d entries", n)
		}
		return nil
	})
	link.mend()
	ids, before, err := p.AppendOnce(t.Context(), said("app", "1"), said("app", "2"), said("app", "3"))
	if err != nil || !slices.Equal(before, []bool{true, true, false}) {
		t.Fatalf("%v %v %v", ids, before, err)
	}
	last, err := w.client.XRange(t.Context(), w.keys.Topic("run"), "-", "+").Result()
	if err != nil || len(last) != 4 || last[1].ID != ids[0] || last[2].ID != ids[1] || last[3].ID != ids[2] {
		t.Errorf("%v, %v; answered %v", last, err, ids)
	}
}

// What keeps one of many from being appended keeps all, and leaves none remembered.
func TestOnceIsAllOrNone(t *testing.T) {
	w := newWorld(t)
	p := w.publisher(stream.PublisherOptions{})
	books := said("app", "2")
	books.Type = "books.changed"
	w.client.Set(t.Context(), w.keys.Topic("books"), "no stream", 0)
	if _, _, err := p.AppendOnce(t.Context(), said("app", "1"), books); err == nil || !strings.Contains(err.Error(), "something else than a stream") {
		t.Errorf("no stream: %v", err)
	}
	w.client.Del(t.Context(), w.keys.Topic("books"))
	w.client.LPush(t.Context(), w.keys.Once("app", "2"), "no text")
	if _, _, err := p.AppendOnce(t.Context(), said("app", "1"), books); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("no text: %v", err)
	}
	w.client.Del(t.Context(), w.keys.Once("app", "2"))
	w.client.ConfigSet(t.Context(), "maxmemory", "1")
	if _, _, err := p.AppendOnce(t.Context(), said("app", "1"), books); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("out of memory: %v", err)
	}
	w.client.ConfigSet(t.Context(), "maxmemory", "0")
	if _, _, err := p.AppendOnce(t.Context(), said("app", "1"), event.Event{Type: "none"}); !errors.Is(err, event.ErrMalformed) {
		t.Errorf("malformed: %v", err)
	}
	if n := w.client.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("%d keys were written", n)
	}
	if _, before, err := p.AppendOnce(t.Context(), said("app", "1"), books); err != nil || before[0] || before[1] {
		t.Errorf("%v %v", before, err)
	}
}

// A thousand events travel in one script; more, or very large ones, in several.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	p := w.publisher(stream.PublisherOptions{})
	events := make([]event.Event, 2500)
	for i := range events {
		events[i] = said("app", strconv.Itoa(i))
	}
	for _, known := range []bool{false, true} {
		ids, before, err := p.AppendOnce(t.Context(), events...)
		if err != nil || len(ids) != len(events) || before[0] != known || before[2499] != known {
			t.Fatalf("%d ids, %v", len(ids), err)
		}
	}
	if n := w.client.XLen(t.Context(), w.keys.Topic("run")).Val(); n != 2500 {
		t.Errorf("%d entries", n)
	}
}
