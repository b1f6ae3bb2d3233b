package consumers

import (
	"context"
	"errors"
	"testing"
	"time"

	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// step looks once and says whether everything is confirmed.
func (w *world) step(c *Confirmer) bool {
	w.Helper()
	if _, err := c.look(w.ctx); err != nil {
		w.Fatal(err)
	}
	done, err := c.look(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	return done
}

func TestRestartedRedisIsConfirmedOnlyWhenAllIsDoneAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	keys := stream.NewKeys("mythic:")
	relay := w.store.RunID()
	c, err := NewConfirmer(w.store, w.views.All(), ConfirmerOptions{
		Keys: keys, Groups: map[string][]string{"invalidate": {"things", "others"}},
		Relay: func(context.Context) (string, error) { return relay, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.set("a", 1)
	w.fill("thing", "a")
	client := w.redis.Client(t)
	topic := keys.Topic("things")
	if err := client.XGroupCreateMkStream(w.ctx, topic, "invalidate", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if !w.step(c) {
		t.Fatal("nothing is in the way and yet it is not confirmed")
	}
	w.wants("thing", "a", `{"n":1}`)

	w.redis.Kill()
	if err := w.redis.Start(w.ctx); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "reach the new server", func() error { return w.store.Ping(w.ctx) })
	testserver.Eventually(t, "notice the new server", func() error {
		if err := w.store.Ping(w.ctx); err != nil || w.store.RunID() == relay {
			return errors.Join(errors.New("still the old one"), err)
		}
		return nil
	})
	w.wants("thing", "a", `stale {"n":1}`)
	if w.step(c) {
		t.Error("confirmed before the relay has its position")
	}
	relay = w.store.RunID()
	p, err := stream.NewPublisher(w.dial, keys, stream.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ids, err := p.Append(w.ctx, event.Event{Type: "things.changed", View: "thing", Subject: "z", Version: w.now().String()})
	if err != nil {
		t.Fatal(err)
	}
	if w.step(c) {
		t.Error("confirmed with an entry that the group has not read")
	}
	if err := client.Do(w.ctx, "XREADGROUP", "GROUP", "invalidate", "me", "STREAMS", topic, ">").Err(); err != nil {
		t.Fatal(err)
	}
	if w.step(c) {
		t.Error("confirmed with an entry that the group has not acknowledged")
	}
	w.wants("thing", "a", `stale {"n":1}`)
	if err := client.XAck(w.ctx, topic, "invalidate", ids...).Err(); err != nil {
		t.Fatal(err)
	}
	if !w.step(c) {
		t.Error("not confirmed when all is done")
	}
	w.wants("thing", "a", `{"n":1}`)
}

func TestConfirmerRunsUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	c, err := NewConfirmer(w.store, w.views.All(), ConfirmerOptions{
		Keys: stream.NewKeys("mythic:"), Groups: map[string][]string{"invalidate": {"things"}}, Every: time.Millisecond,
		Relay: func(context.Context) (string, error) { return w.store.RunID(), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	testserver.Eventually(t, "confirm", func() error {
		confirmed, err := w.store.Confirmed(w.ctx, w.views.All())
		if err == nil && confirmed["thing"] != w.store.RunID() {
			err = errors.New("not yet")
		}
		return err
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := NewConfirmer(w.store, w.views.All(), ConfirmerOptions{}); err == nil {
		t.Error("a confirmer that knows nothing was made")
	}
}
