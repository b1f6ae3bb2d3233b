package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// never is longer than any test.
const never = time.Hour

func TestBatchesAreHandledAndAcked(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 1200)...)
	w.append(changed("users", 300)...)
	w.consume(stream.ConsumerOptions{Topics: []string{"books", "users"}, BatchSize: 100, ClaimAfter: never}, l.handle)
	w.settled("g", "books")
	w.settled("g", "users")
	if events, repeats := l.repeats(); events != 1500 || repeats != 0 {
		t.Errorf("%d events handled and %d repeated; want 1500 and 0", events, repeats)
	}
	if l.most != 100 {
		t.Errorf("the largest batch has %d messages; want 100", l.most)
	}
}

func TestHandlerSeesTheEvent(t *testing.T) {
	w := newWorld(t)
	sent := event.Event{
		ID: "e1", Type: event.RunProgress, Source: "app", Subject: "RUN1", View: "v", Data: []byte(`{"a":1}`),
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Version: strings.Repeat("1", 36), Traceparent: "00-ab",
	}
	bare := event.Event{Type: event.RunStarted, Subject: "RUN2"}
	ids := w.append(sent, bare)
	type seen struct {
		event event.Event
		entry stream.Entry
	}
	got := make(chan seen, 2)
	w.consume(stream.ConsumerOptions{Topics: []string{"run"}}, func(_ context.Context, batch []*message.Message) []error {
		for _, m := range batch {
			e, err := stream.EventOf(m)
			entry, ok := stream.EntryOf(m)
			if err != nil || !ok {
				t.Errorf("EventOf = %v, EntryOf = %v", err, ok)
			}
			got <- seen{e, entry}
		}
		return nil
	})
	first, second := within(t, "the first event", got), within(t, "the second event", got)
	if fmt.Sprint(first.event) != fmt.Sprint(sent) {
		t.Errorf("got %+v\nwant %+v", first.event, sent)
	}
	if first.entry.ID != ids[0] || first.entry.Topic != "run" || first.entry.Deliveries != 1 {
		t.Errorf("entry = %+v", first.entry)
	}
	if second.event.ID != ids[1] || !second.event.Time.Equal(second.entry.Added) || second.event.Time.IsZero() {
		t.Errorf("id and time of %+v are not those of its entry %+v", second.event, second.entry)
	}
}

func TestOwnPendingIsTakenUpAtStart(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 10)...)
	w.readAs("me", 10)
	w.consume(stream.ConsumerOptions{Name: "me", BatchSize: 3, ClaimAfter: never}, l.handle)
	w.await(l, 10)
	w.settled("g", "books")
}

// readAs reads entries as a consumer of the group that then does nothing.
func (w *world) readAs(name string, n int64) {
	w.Helper()
	w.client.XGroupCreateMkStream(w.Context(), w.keys.Topic("books"), "g", "0")
	err := w.client.XReadGroup(w.Context(), &redis.XReadGroupArgs{
		Group: "g", Consumer: name, Streams: []string{w.keys.Topic("books"), ">"}, Count: n,
	}).Err()
	if err != nil {
		w.Fatal(err)
	}
}

func TestEntriesOfTheDeadAreClaimed(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 250)...)
	w.readAs("dead", 200)
	w.consume(stream.ConsumerOptions{Name: "me", BatchSize: 30, ClaimAfter: 200 * time.Millisecond}, l.handle)
	w.await(l, 250)
	w.settled("g", "books")
	if _, repeats := l.repeats(); repeats != 0 {
		t.Errorf("%d repeats", repeats)
	}
}

func TestWhatKillsItsConsumersIsGivenUp(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 1)...)
	w.readAs("dead", 1)
	key := w.keys.Topic("books")
	for range 2 { // two more consumers had it and died of it
		if err := w.client.XAutoClaim(t.Context(), &redis.XAutoClaimArgs{Stream: key, Group: "g", Consumer: "dead", Start: "0"}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	w.consume(stream.ConsumerOptions{MaxDeliveries: 3, ClaimAfter: 100 * time.Millisecond}, l.handle)
	letter := w.dead(1)[0]
	if !strings.Contains(letter.Reason, "delivered 3 times without an answer") || l.of("books-0") != 0 {
		t.Errorf("dead letter %+v; handled %d times", letter, l.of("books-0"))
	}
}

// A handler may take many times ClaimAfter, with stream entries and with parked
// events, and nobody takes its work away.
func TestWhatIsInFlightIsNotClaimed(t *testing.T) {
	w := newWorld(t)
	const claimAfter = 90 * time.Millisecond
	w.append(changed("books", 2)...)
	var calls atomic.Int32
	h := func(_ context.Context, batch []*message.Message) []error {
		errs := make([]error, len(batch))
		for i, m := range batch {
			calls.Add(1)
			entry, _ := stream.EntryOf(m)
			if entry.Deliveries == 1 {
				errs[i] = errFails
			}
		}
		time.Sleep(10 * claimAfter) // the slow work itself
		return errs
	}
	for range 2 {
		w.consume(stream.ConsumerOptions{ClaimAfter: claimAfter, Backoff: time.Millisecond}, h)
	}
	w.settled("g", "books")
	if n := calls.Load(); n != 4 {
		t.Errorf("%d deliveries; want 4: two events, each failing once", n)
	}
}

func TestFailingEventIsParkedAndComesBack(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 50)...)
	w.consume(stream.ConsumerOptions{BatchSize: 10, Backoff: time.Millisecond, ClaimAfter: never},
		func(_ context.Context, batch []*message.Message) []error {
			errs := make([]error, len(batch))
			for i, m := range batch {
				l.note(m)
				entry, _ := stream.EntryOf(m)
				if entry.Deliveries != l.of(m.UUID) {
					t.Errorf("%s says that it was delivered %d times; it was %d times", m.UUID, entry.Deliveries, l.of(m.UUID))
				}
				if e, err := stream.EventOf(m); err != nil || e.Subject != "s" || e.Time.IsZero() {
					t.Errorf("EventOf = %+v, %v", e, err)
				}
				if m.UUID == "books-7" && entry.Deliveries < 4 {
					errs[i] = errFails
				}
			}
			return errs
		})
	w.settled("g", "books")
	if events, repeats := l.repeats(); events != 50 || repeats != 3 {
		t.Errorf("%d events and %d repeats; want 50 and 3", events, repeats)
	}
	if n := w.client.Exists(t.Context(), w.keys.Parked("g", "books"), w.keys.ParkedEntries("g", "books")).Val(); n != 0 {
		t.Error("something of a parked event is left behind")
	}
}

// While one event waits for its next try, those behind it are handled.
func TestParkedEventHoldsUpNobody(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 5)...)
	r := w.consume(stream.ConsumerOptions{BatchSize: 1, Concurrency: 1, Backoff: never},
		func(ctx context.Context, batch []*message.Message) []error {
			if batch[0].UUID == "books-0" {
				return []error{errFails}
			}
			return l.handle(ctx, batch)
		})
	w.await(l, 4)
	r.stop()
	states, err := stream.Groups(t.Context(), w.client, w.keys, []string{"books"})
	if err != nil || len(states) != 1 || states[0].Parked != 1 || states[0].Pending != 0 {
		t.Errorf("Groups = %+v, %v", states, err)
	}
}

func TestSpentEventIsDeadAndCanBeReplayed(t *testing.T) {
	w := newWorld(t)
	sent := event.Event{ID: "e1", Type: event.RunProgress, Subject: "RUN1", Data: []byte(`{"a":1}`)}
	ids := w.append(sent)
	var deliveries atomic.Int32
	var mended atomic.Bool
	w.consume(stream.ConsumerOptions{Topics: []string{"run"}, MaxDeliveries: 3, Backoff: time.Millisecond},
		func(_ context.Context, batch []*message.Message) []error {
			if mended.Load() {
				return nil
			}
			deliveries.Add(1)
			return []error{fmt.Errorf("write: %w", errFails)}
		})
	letter := w.dead(1)[0]
	w.settled("g", "run")
	if deliveries.Load() != 3 || letter.Deliveries != 3 {
		t.Errorf("delivered %d times, dead letter says %d; want 3", deliveries.Load(), letter.Deliveries)
	}
	if letter.Reason != "write: it fails" || letter.Group != "g" || letter.Topic != "run" || letter.Entry != ids[0] || letter.Type != event.RunProgress {
		t.Errorf("dead letter = %+v", letter)
	}
	if letter.First.IsZero() || !letter.Last.After(letter.First) {
		t.Errorf("first %s and last %s failure", letter.First, letter.Last)
	}
	if fmt.Sprint(letter.Fields) != fmt.Sprint(map[string]string{"id": "e1", "type": "run.progress", "subject": "RUN1", "data": `{"a":1}`}) {
		t.Errorf("fields = %v", letter.Fields)
	}

	mended.Store(true)
	if n, err := w.letters().Replay(t.Context(), stream.Filter{}); n != 1 || err != nil {
		t.Errorf("Replay = %d, %v", n, err)
	}
	w.dead(0)
	w.settled("g", "run")
}

func TestRejectedEventIsDeadAtOnce(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 1)...)
	w.consume(stream.ConsumerOptions{Backoff: never}, func(context.Context, []*message.Message) []error {
		return []error{fmt.Errorf("unknown kind: %w", stream.ErrReject)}
	})
	if letter := w.dead(1)[0]; letter.Deliveries != 1 || !strings.HasPrefix(letter.Reason, "unknown kind") {
		t.Errorf("dead letter = %+v", letter)
	}
	w.settled("g", "books")
}

// What is paused comes back without having cost anything, and meanwhile the
// handler is not bothered with the others either.
func TestPauseCostsNoDelivery(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 3)...)
	var away atomic.Bool
	away.Store(true)
	var paused, most atomic.Int32
	var last time.Time // when a call was over; calls come one by one here
	w.consume(stream.ConsumerOptions{MaxDeliveries: 1, BatchSize: 1, Concurrency: 1}, func(ctx context.Context, batch []*message.Message) []error {
		if away.Load() {
			if gap := time.Since(last); gap < 100*time.Millisecond {
				t.Errorf("called again %s after a pause", gap)
			}
			defer func() { last = time.Now() }()
			if paused.Add(1) == 4 {
				away.Store(false)
			}
			errs := make([]error, len(batch))
			for i := range errs {
				errs[i] = fmt.Errorf("%w: postgres is away", stream.ErrPause)
			}
			return errs
		}
		for _, m := range batch {
			entry, _ := stream.EntryOf(m)
			most.Store(max(most.Load(), int32(entry.Deliveries)))
		}
		return l.handle(ctx, batch)
	})
	w.await(l, 3)
	w.settled("g", "books")
	w.dead(0)
	if most.Load() != 1 {
		t.Errorf("pauses counted as deliveries: %d", most.Load())
	}
}

func TestPanicFailsTheEventNotTheBatch(t *testing.T) {
	w, l := newWorld(t), newLedger()
	w.append(changed("books", 20)...)
	w.consume(stream.ConsumerOptions{BatchSize: 20, MaxDeliveries: 2, Backoff: time.Millisecond},
		func(_ context.Context, batch []*message.Message) []error {
			for _, m := range batch {
				if m.UUID == "books-13" {
					panic("thirteen")
				}
			}
			for _, m := range batch {
				l.note(m)
			}
			return nil
		})
	letter := w.dead(1)[0]
	if letter.Fields["id"] != "books-13" || letter.Reason != "handler panicked: thirteen" || letter.Deliveries != 2 {
		t.Errorf("dead letter = %+v", letter)
	}
	w.settled("g", "books")
	if events, repeats := l.repeats(); events != 19 || repeats != 0 {
		t.Errorf("%d others handled, %d repeats; want 19 and 0", events, repeats)
	}
}

func TestWrongNumberOfOutcomesFailsTheBatch(t *testing.T) {
	w := newWorld(t)
	w.append(changed("books", 3)...)
	w.consume(stream.ConsumerOptions{MaxDeliveries: 1}, func(_ context.Context, batch []*message.Message) []error {
		return make([]error, len(batch)+1)
	})
	if letter := w.dead(3)[0]; !strings.Contains(letter.Reason, "outcomes for") {
		t.Errorf("reason = %q", letter.Reason)
	}
}

func TestConsumerOptionsAreChecked(t *testing.T) {
	w := newWorld(t)
	none := func(context.Context, []*message.Message) []error { return nil }
	for says, o := range map[string]stream.ConsumerOptions{
		"needs a group":           {Topics: []string{"a"}},
		"has no topics":           {Group: "g"},
		"BatchSize is negative":   {Group: "g", Topics: []string{"a"}, BatchSize: -1},
		"Concurrency is negative": {Group: "g", Topics: []string{"a"}, Concurrency: -1},
	} {
		if _, err := stream.NewConsumer(w.dial, w.keys, none, o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v; want %q", o, err, says)
		}
	}
	refused := func(func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) { return nil, errFails }
	if _, err := stream.NewConsumer(refused, w.keys, none, stream.ConsumerOptions{Group: "g", Topics: []string{"a"}}); !errors.Is(err, errFails) {
		t.Errorf("dial's error is %v", err)
	}
}

func TestReadyNamesTheGroup(t *testing.T) {
	w, l := newWorld(t), newLedger()
	r := w.consume(stream.ConsumerOptions{}, l.handle)
	w.ready(r)
	w.client.Set(t.Context(), w.keys.Topic("books"), "no stream", 0)
	testserver.Eventually(t, "the key of another type is noticed", func() error {
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "group g of books") {
			return fmt.Errorf("Ready = %w", errors.Join(err, errFails))
		}
		return nil
	})
	w.client.Del(t.Context(), w.keys.Topic("books"))
	w.ready(r)
}
