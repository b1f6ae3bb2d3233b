package stream_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"mythiccache/producers/stream"
)

// Entries of every bad kind lie between good ones; each ends in the dead letters
// as it was, and no good one waits for it: nothing is tried again or claimed here
// before never, and reading five at a time goes by the bad ones.
func TestMalformedIsDeadAtOnceAndStopsNothing(t *testing.T) {
	for name, read := range map[string]func(*world, *ledger){
		"batches": func(w *world, l *ledger) {
			w.consume(stream.ConsumerOptions{BatchSize: 5, Backoff: never, ClaimAfter: never}, l.handle)
		},
		"watermill's Router": func(w *world, l *ledger) {
			s := w.subscriber(stream.SubscriberOptions{BatchSize: 5, InFlight: 5, Backoff: never, ClaimAfter: never})
			w.route(s, func(m *message.Message) error {
				if _, err := stream.EventOf(m); err != nil {
					return err
				}
				l.note(m)
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) { testMalformed(t, read) })
	}
}

func testMalformed(t *testing.T, read func(*world, *ledger)) {
	t.Helper()
	w, l := newWorld(t), newLedger()
	many := map[string]string{}
	for i := range 6000 {
		many[fmt.Sprintf("f%d", i)] = "v"
	}
	poison := map[string]struct {
		fields map[string]string
		says   string
	}{
		"empty":         {map[string]string{"": ""}, "type"},
		"binary":        {map[string]string{"type": "\xff\x00\xfe", "\x00": "\xff"}, "type"},
		"no subject":    {map[string]string{"type": "books.changed"}, "needs a subject"},
		"wrong JSON":    {map[string]string{"type": "books.changed", "subject": "s", "data": "{"}, "not JSON"},
		"wrong time":    {map[string]string{"type": "books.changed", "subject": "s", "time": "soon"}, "time"},
		"5 MB":          {map[string]string{"type": "books.changed", "subject": "s", "data": `"` + strings.Repeat("x", 5<<20) + `"`}, "data has"},
		"many fields":   {many, "type"},
		"no msgpack":    {map[string]string{redisstream.UUIDHeaderKey: "u", "metadata": "\xdf\xff\xff\xff\xff", "payload": "p"}, "metadata"},
		"cut msgpack":   {map[string]string{redisstream.UUIDHeaderKey: "u", "metadata": "\x82\xa1a", "payload": "p"}, "metadata"},
		"msgpack of 1s": {map[string]string{redisstream.UUIDHeaderKey: "u", "metadata": "\x81\x01\x01", "payload": "p"}, "metadata"},
		"no event":      {map[string]string{redisstream.UUIDHeaderKey: "u", "payload": "p"}, "type"},
		"our parcel":    {map[string]string{"dead.parcel": "mine", "dead.id": "mine"}, "type"},
		"our own names": {map[string]string{"dead.reason": "mine", "dead.topic": "mine"}, "type"},
	}
	names := map[string]string{} // by the entry
	good := changed("books", 2*len(poison))
	for name, p := range poison {
		w.append(good[2*len(names)])
		fields := make([]any, 0, 2*len(p.fields))
		for name, value := range p.fields {
			fields = append(fields, name, value)
		}
		entry, err := w.client.XAdd(t.Context(), &redis.XAddArgs{Stream: w.keys.Topic("books"), Values: fields}).Result()
		if err != nil {
			t.Fatal(err)
		}
		w.append(good[2*len(names)+1])
		names[entry] = name
	}
	read(w, l)
	w.settled("g", "books")
	if events, repeats := l.repeats(); events != len(good) || repeats != 0 {
		t.Errorf("%d good events handled, %d repeats; want %d and 0", events, repeats, len(good))
	}
	for _, letter := range w.dead(len(poison)) {
		name := names[letter.Entry]
		p := poison[name]
		if !strings.Contains(letter.Reason, p.says) || letter.Deliveries != 1 || time.Since(letter.Last) > time.Minute {
			t.Errorf("%s: reason %q, deliveries %d, last %s", name, letter.Reason, letter.Deliveries, letter.Last)
		}
		if len(letter.Fields) != len(p.fields) {
			t.Errorf("%s: %d fields are kept of %d", name, len(letter.Fields), len(p.fields))
		}
		for field, value := range p.fields {
			if letter.Fields[field] != value {
				t.Errorf("%s: field %q is not kept", name, field)
			}
		}
	}
}

// What was replayed although nothing changed is a dead letter again, as it was.
func TestMalformedIsReplayedUnchanged(t *testing.T) {
	w, l := newWorld(t), newLedger()
	fields := []any{"type", "books.changed", "data", "\xff\xfe"}
	if err := w.client.XAdd(t.Context(), &redis.XAddArgs{Stream: w.keys.Topic("books"), Values: fields}).Err(); err != nil {
		t.Fatal(err)
	}
	w.consume(stream.ConsumerOptions{}, l.handle)
	before := w.dead(1)[0]
	if n, err := w.letters().Replay(t.Context(), stream.Filter{IDs: []string{before.ID}}); n != 1 || err != nil {
		t.Fatalf("Replay = %d, %v", n, err)
	}
	w.settled("g", "books")
	after := w.dead(1)[0]
	if after.ID == before.ID || after.Entry != before.Entry || after.Fields["data"] != "\xff\xfe" || !after.First.Equal(before.First) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}
