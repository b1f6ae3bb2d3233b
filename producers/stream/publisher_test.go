package stream_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

func TestAppendGoesToEachEventsTopic(t *testing.T) {
	w := newWorld(t)
	events := append(changed("books", 1200), changed("users", 3)...)
	ids := w.append(events...)
	if len(ids) != len(events) {
		t.Fatalf("%d ids for %d events", len(ids), len(events))
	}
	last, err := w.client.XRevRangeN(t.Context(), w.keys.Topic("books"), "+", "-", 1).Result()
	if err != nil || last[0].ID != ids[1199] || last[0].Values["id"] != "books-1199" {
		t.Errorf("last of books is %+v, %v; want %s", last, err, ids[1199])
	}
	if n := w.client.XLen(t.Context(), w.keys.Topic("users")).Val(); n != 3 {
		t.Errorf("users has %d entries", n)
	}
}

func TestMalformedIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	w := newWorld(t)
	events := append(changed("books", 2), event.Event{Type: "none"})
	if _, err := w.publisher(stream.PublisherOptions{}).Append(t.Context(), events...); !errors.Is(err, event.ErrMalformed) || !strings.Contains(err.Error(), "event 3 of 3") {
		t.Errorf("Append = %v", err)
	}
	if n := w.client.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("%d keys were written", n)
	}
}

// Where Redis runs out of memory amid a batch, it is not half published.
func TestPublishIsAllOrNone(t *testing.T) {
	w := newWorld(t)
	p := w.publisher(stream.PublisherOptions{})
	large := make([]*message.Message, 1000)
	for i := range large {
		large[i] = message.NewMessage("", make([]byte, 3000))
	}
	for limit := int64(1 << 20); limit < 5<<20; limit += 1 << 20 {
		w.client.Del(t.Context(), w.keys.Topic("books"))
		var used int64
		for line := range strings.Lines(w.client.Info(t.Context(), "memory").Val()) {
			if text, ok := strings.CutPrefix(line, "used_memory:"); ok {
				used, _ = strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			}
		}
		w.client.ConfigSet(t.Context(), "maxmemory", strconv.FormatInt(used+limit, 10))
		err := p.Publish("books", large...)
		w.client.ConfigSet(t.Context(), "maxmemory", "0")
		if n := w.client.XLen(t.Context(), w.keys.Topic("books")).Val(); (n != 0 || err == nil) && (n != 1000 || err != nil) {
			t.Errorf("with %d bytes left, %d of 1000 were published, and the error is %v", limit, n, err)
		}
	}
}

func TestPublishOutOfMemory(t *testing.T) {
	w := newWorld(t)
	registry := prometheus.NewRegistry()
	p := w.publisher(stream.PublisherOptions{Metrics: registry})
	messages := []*message.Message{message.NewMessage("1", nil), message.NewMessage("2", nil)}
	w.client.ConfigSet(t.Context(), "maxmemory", "1")
	if err := p.Publish("books", messages...); err == nil || !strings.Contains(err.Error(), "publish to books: ") {
		t.Errorf("Publish out of memory = %v", err)
	}
	w.client.ConfigSet(t.Context(), "maxmemory", "0")
	if n := w.client.XLen(t.Context(), w.keys.Topic("books")).Val(); n != 0 {
		t.Errorf("%d entries of a failed batch", n)
	}
	if err := errors.Join(p.Publish("books", messages...), p.Publish("books")); err != nil {
		t.Error(err)
	}
	if n := w.client.XLen(t.Context(), w.keys.Topic("books")).Val(); n != 2 {
		t.Errorf("%d entries", n)
	}
	if got := w.counts(registry, "mythic_cache_stream_published_total"); got["books"] != 2 {
		t.Errorf("metrics say %v", got)
	}
}

func TestClosedPublisher(t *testing.T) {
	w := newWorld(t)
	p := w.publisher(stream.PublisherOptions{})
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	if err := p.Publish("books", message.NewMessage("1", nil)); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("Publish = %v", err)
	}
}
