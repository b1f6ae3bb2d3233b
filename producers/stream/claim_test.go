package stream_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// A flood of large entries behind small ones makes an answer that does not come in
// time. They are asked for again in smaller bites, and nobody counts as having had
// them.
func TestAnAnswerThatIsTooLargeIsAskedForInBites(t *testing.T) {
	w := newWorld(t, "--appendonly", "no", "--proto-max-bulk-len", "512mb")
	w.append(changed("books", 600)...)
	large := changed("books", 100)
	for i := range large {
		large[i].ID = fmt.Sprintf("large-%d", i)
		large[i].Data = []byte(`"` + strings.Repeat("x", 400_000) + `"`)
	}
	for i := 0; i < len(large); i += 10 {
		w.append(large[i : i+10]...)
	}
	done := newLedger()
	slow := func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		o, err := redis.ParseURL(w.server.URL())
		if err != nil {
			return nil, err
		}
		o.OnConnect, o.MaxRetries = onConnect, 1
		o.ReadTimeout = 15 * time.Millisecond // for 40 MB
		return redis.NewClient(o), nil
	}
	c, err := stream.NewConsumer(slow, w.keys, done.handle, stream.ConsumerOptions{Group: "g", Topics: []string{"books"}, MaxDeliveries: 3})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	w.await(done, 700)
	w.settled("g", "books")
	if letters, err := w.letters().List(t.Context(), stream.Filter{}); err != nil || len(letters) != 0 {
		t.Errorf("%d dead letters, %v; the first is %.300v", len(letters), err, letters)
	}
}

// A dead letter that is written twice, since an answer got lost, is one.
func TestALostAnswerMakesNoSecondDeadLetter(t *testing.T) {
	w := newWorld(t)
	w.append(event.Event{ID: "e", Type: "books.changed", Subject: "s", View: "v"})
	if err := w.client.XGroupCreate(t.Context(), w.keys.Topic("books"), "g", "0").Err(); err != nil {
		t.Fatal(err)
	}
	read, err := w.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "g", Consumer: "c", Streams: []string{w.keys.Topic("books"), ">"}}).Result()
	if err != nil {
		t.Fatal(err)
	}
	id := read[0].Messages[0].ID
	bury := readScript(t, "bury.lua")
	keys := []string{w.keys.Topic("books"), w.keys.Dead(), w.keys.Parked("g", "books"), w.keys.ParkedEntries("g", "books")}
	for range 2 {
		if err := w.client.Eval(t.Context(), bury, keys, "g", id, "id", "e", "dead.group", "g").Err(); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.client.XLen(t.Context(), w.keys.Dead()).Val(); n != 1 {
		t.Errorf("%d dead letters", n)
	}
	// A parked one, whose entry was acknowledged long ago.
	park := readScript(t, "park.lua")
	if err := w.client.Eval(t.Context(), park, []string{keys[0], keys[2], keys[3]}, "g", id, 0, 1, "{}", "").Err(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.client.Eval(t.Context(), bury, keys, "g", id, "id", "e", "dead.group", "g").Err(); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.client.XLen(t.Context(), w.keys.Dead()).Val(); n != 2 {
		t.Errorf("%d dead letters", n)
	}
}

// What is parked is brought by its bytes, too: one large event at least, and many
// small ones.
func TestLargeParkedEventsComeFewAtATime(t *testing.T) {
	w := newWorld(t)
	take, park := readScript(t, "take.lua"), readScript(t, "park.lua")
	keys := []string{w.keys.Topic("books"), w.keys.Parked("g", "books"), w.keys.ParkedEntries("g", "books")}
	for i := range 20 {
		parcel := strings.Repeat("x", 100<<(i/10*10)) // ten of 100 bytes, ten of 100 kB
		if err := w.client.Eval(t.Context(), park, keys, "g", fmt.Sprintf("%d-0", i+1), -1000+i, 0, parcel, "").Err(); err != nil {
			t.Fatal(err)
		}
	}
	var counts []int
	testserver.Eventually(t, "all taken", func() error {
		reply, err := w.client.Eval(t.Context(), take, keys[1:], 500, 60_000, 4, 250_000).Slice()
		if err != nil {
			return err
		}
		if n := (len(reply) - 2) / 4; n > 0 {
			counts = append(counts, n)
			return fmt.Errorf("%d more", n)
		}
		return nil
	})
	if fmt.Sprint(counts) != "[13 3 3 1]" {
		t.Errorf("taken by %v", counts)
	}
}
