package stream_test

import (
	"bytes"
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"mythiccache/producers/stream"
)

func TestGroupsSayHowFarTheyAre(t *testing.T) {
	w := newWorld(t)
	w.fill(10, 5)
	key := w.keys.Topic("books")
	w.readAs("c", 4)
	w.client.XGroupCreate(t.Context(), key, "idle", "$")
	states := func() map[string]stream.GroupState {
		t.Helper()
		got, err := stream.Groups(t.Context(), w.client, w.keys, []string{"missing", "books"})
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]stream.GroupState{}
		for _, s := range got {
			m[s.Group] = s
		}
		return m
	}
	got := states()
	age := got["g"].OldestPending
	first := w.client.XRangeN(t.Context(), key, "-", "+", 1).Val()[0].ID
	if g := got["g"]; g.Oldest != first || g.Acknowledged != 0 {
		t.Errorf("g = %+v; want %s as the oldest", g, first)
	}
	if g := got["g"]; g.Topic != "books" || g.Length != 15 || g.Lag != 11 || g.Pending != 4 || g.Consumers != 1 || age < 10*time.Minute || age > 11*time.Minute {
		t.Errorf("g = %+v", g)
	}
	if g := got["idle"]; g.Lag != 0 || g.Pending != 0 || g.OldestPending != 0 {
		t.Errorf("idle = %+v", g)
	}
	// After a deletion Redis no longer knows the lag; counting still does.
	found := w.client.XRange(t.Context(), key, "-", "+").Val()
	w.client.XAck(t.Context(), key, "g", found[0].ID, found[1].ID, found[2].ID, found[3].ID)
	w.client.XDel(t.Context(), key, found[7].ID)
	if g := states()["g"]; g.Lag != 10 || g.Pending != 0 || g.OldestPending < 10*time.Minute || g.Oldest != found[4].ID || g.Acknowledged != 4 {
		t.Errorf("after a deletion g = %+v", g)
	}
	// What the deletion left unknown changes with each acknowledgement all the same.
	before := states()["idle"].Acknowledged
	w.client.XGroupSetID(t.Context(), key, "idle", found[6].ID)
	read, err := w.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "idle", Consumer: "c", Streams: []string{key, ">"}, Count: 3}).Result()
	if err != nil {
		t.Fatal(err)
	}
	unanswered := states()["idle"].Acknowledged
	w.client.XAck(t.Context(), key, "idle", read[0].Messages[0].ID)
	if answered := states()["idle"].Acknowledged; answered == unanswered || unanswered == before {
		t.Errorf("acknowledged %d, %d after a read, %d after an answer", before, unanswered, answered)
	}
	of := stream.GroupTopic{Group: "idle", Topic: "books"}
	if who, idle, err := stream.Holder(t.Context(), w.client, w.keys, of, read[0].Messages[1].ID); who != "c" || idle > time.Minute || err != nil {
		t.Errorf("Holder = %q, %s, %v", who, idle, err)
	}
	for _, of := range []stream.GroupTopic{of, {Group: "none", Topic: "books"}, {Group: "idle", Topic: "none"}} {
		if who, _, err := stream.Holder(t.Context(), w.client, w.keys, of, read[0].Messages[0].ID); who != "" || err != nil {
			t.Errorf("Holder of %+v = %q, %v", of, who, err)
		}
	}
}

// counts returns a counter's values by the values of its labels.
func (w *world) counts(registry *prometheus.Registry, name string) map[string]float64 {
	w.Helper()
	families, err := registry.Gather()
	if err != nil {
		w.Fatal(err)
	}
	counts := map[string]float64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetValue())
			}
			counts[strings.Join(labels, " ")] = metric.GetCounter().GetValue()
		}
	}
	return counts
}

func TestConsumersShareTheirMetrics(t *testing.T) {
	w, l := newWorld(t), newLedger()
	registry := prometheus.NewRegistry()
	w.append(changed("books", 10)...)
	w.append(changed("users", 5)...)
	if err := w.client.XAdd(t.Context(), &redis.XAddArgs{Stream: w.keys.Topic("users"), Values: []any{"no", "event"}}).Err(); err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"books", "users"} {
		w.consume(stream.ConsumerOptions{Topics: []string{topic}, Metrics: registry, Backoff: time.Millisecond},
			func(ctx context.Context, batch []*message.Message) []error {
				errs := make([]error, len(batch))
				for i, m := range batch {
					if l.note(m); m.UUID == "books-3" && l.of(m.UUID) == 1 {
						errs[i] = errFails
					}
				}
				return errs
			})
		w.settled("g", topic)
	}
	want := map[string]float64{"g dead users": 1, "g done books": 10, "g done users": 5, "g retried books": 1}
	if got := w.counts(registry, "mythic_cache_stream_deliveries_total"); !maps.Equal(got, want) {
		t.Errorf("metrics say %v; want %v", got, want)
	}
}

func TestZerologAdapter(t *testing.T) {
	var out bytes.Buffer
	a := stream.ZerologAdapter(zerolog.New(&out).Level(zerolog.TraceLevel)).With(watermill.LogFields{"topic": "books"})
	a.With(watermill.LogFields{"n": 1}).Error("it broke", errFails, watermill.LogFields{"id": "x"})
	a.Info("started", nil)
	a.Debug("details", nil)
	a.Trace("more", watermill.LogFields{"n": 2})
	want := `{"level":"error","error":"it fails","n":1,"topic":"books","id":"x","message":"it broke"}
{"level":"debug","topic":"books","message":"started"}
{"level":"debug","topic":"books","message":"details"}
{"level":"trace","topic":"books","n":2,"message":"more"}
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
