package stream_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// A group that nobody reads for any more goes, with what it had parked; others stay.
func TestGroupThatIsNoLongerUsedIsRetired(t *testing.T) {
	w := newWorld(t)
	for _, topic := range []string{"old", "used", "other"} {
		w.write(topic, 3, 0)
		w.client.XGroupCreate(t.Context(), w.keys.Topic(topic), "g", "0")
		w.client.XGroupCreate(t.Context(), w.keys.Topic(topic), "h", "0")
	}
	read := func(topic string) {
		t.Helper()
		if err := w.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "g", Consumer: "c", Streams: []string{w.keys.Topic(topic), ">"}, Count: 1}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	w.client.ZAdd(t.Context(), w.keys.Parked("g", "old"), redis.Z{Member: "1"})
	retire := func(after time.Duration) string {
		t.Helper()
		retired, err := stream.Retire(t.Context(), w.client, w.keys, "g", []string{"old", "used", "missing"}, after)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(retired)
	}
	read("old")
	read("used")
	if got := retire(time.Minute); got != "[]" {
		t.Errorf("retired at once: %s", got)
	}
	testserver.Eventually(t, "a little later", func() error {
		if w.client.XInfoConsumers(t.Context(), w.keys.Topic("old"), "g").Val()[0].Idle < time.Second {
			return errors.New("not yet")
		}
		return nil
	})
	read("used")
	if got := retire(time.Second); got != "[old]" {
		t.Errorf("retired: %s", got)
	}
	states, err := stream.Groups(t.Context(), w.client, w.keys, []string{"old", "used", "other"})
	if err != nil || len(states) != 5 || states[0].Group != "h" {
		t.Errorf("the groups are %+v (%v)", states, err)
	}
	if n := w.client.Exists(t.Context(), w.keys.Parked("g", "old")).Val(); n != 0 {
		t.Error("what it had parked is still there")
	}
	if got := retire(time.Hour); got != "[]" {
		t.Errorf("retired again: %s", got)
	}
}
