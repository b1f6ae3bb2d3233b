package stream

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/producers/event"
)

// stored is what Redis gives back of what encode made.
func stored(t *testing.T, fields []any) map[string]any {
	t.Helper()
	if len(fields) == 0 || len(fields)%2 != 0 {
		t.Fatalf("%d names and values are no entry", len(fields))
	}
	values := map[string]any{}
	for i := 0; i < len(fields); i += 2 {
		text, ok := fields[i+1].(string)
		if b, isBytes := fields[i+1].([]byte); isBytes {
			text, ok = string(b), true
		}
		name, named := fields[i].(string)
		if !ok || !named {
			t.Fatalf("%v: %v is neither text nor bytes", fields[i], fields[i+1])
		}
		values[name] = text
	}
	return values
}

func TestMessagesSurviveBothWires(t *testing.T) {
	e := event.Event{
		ID: "e1", Type: event.RunProgress, Source: "app", Subject: "RUN1", View: "v", Data: []byte(`{"a":1}`),
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Version: strings.Repeat("1", 36), Traceparent: "00-ab",
	}
	bare := message.NewMessage("u", nil)
	reserved := message.NewMessage("u", []byte("p"))
	reserved.Metadata = message.Metadata{"id": "another", "data": "other"}
	binary := message.NewMessage("u", []byte{0xff, 0})
	binary.Metadata["\xfe"] = ""
	for name, m := range map[string]*message.Message{"event": FromEvent(e), "bare": bare, "reserved": reserved, "binary": binary} {
		for _, wire := range []Wire{WirePlain, WireWatermill} {
			fields, err := encode(m, wire)
			if err != nil {
				t.Fatal(err)
			}
			values := stored(t, fields)
			if _, ok := values[redisstream.UUIDHeaderKey]; ok != (wire == WireWatermill || name == "reserved") {
				t.Errorf("%s in wire %d is written as %v", name, wire, values)
			}
			got, err := decode("1-1", fieldsOf(values))
			if err != nil || got.UUID != m.UUID || string(got.Payload) != string(m.Payload) || !maps.Equal(got.Metadata, m.Metadata) {
				t.Errorf("%s in wire %d: %+v, %v", name, wire, got, err)
			}
		}
	}
	if got, err := EventOf(FromEvent(e)); err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("EventOf(FromEvent) = %+v, %v", got, err)
	}
}

func TestEmptyMessageIsAnEntry(t *testing.T) {
	fields, err := encode(message.NewMessage("", nil), WirePlain)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decode("1-1", fieldsOf(stored(t, fields)))
	if err != nil || m.UUID != "1-1" || len(m.Payload) != 0 {
		t.Errorf("%+v, %v; want the entry's id in place of a UUID", m, err)
	}
}

func TestEventOfNamesWhatIsMalformed(t *testing.T) {
	if _, err := EventOf(message.NewMessage("u", nil)); !errors.Is(err, event.ErrMalformed) {
		t.Errorf("EventOf = %v", err)
	}
}

func TestAddedAt(t *testing.T) {
	for id, want := range map[string]time.Time{
		"1767323045678-3":        time.UnixMilli(1767323045678).UTC(),
		"0-1":                    time.UnixMilli(0).UTC(),
		"x-1":                    {},
		"99999999999999999999-1": {},
	} {
		if got := addedAt(id); !got.Equal(want) {
			t.Errorf("addedAt(%q) = %s; want %s", id, got, want)
		}
	}
}

// FuzzDecode: whatever anybody wrote makes a message or an error.
func FuzzDecode(f *testing.F) {
	f.Add("type", "a.b", "data", "{}")
	f.Add(redisstream.UUIDHeaderKey, "u", "metadata", "\x81\xa1a\xa1b")
	f.Add(redisstream.UUIDHeaderKey, "u", "metadata", "\xdf\xff\xff\xff\xff")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		m, err := decode("1-1", fields{name1, value1, name2, value2})
		if (m == nil) == (err == nil) {
			t.Errorf("decode = %v, %v", m, err)
		}
		if err == nil {
			_, _ = parse(m, &delivery{id: "1-1"})
		}
	})
}

func TestParcelKeepsBytes(t *testing.T) {
	first := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	d := &delivery{topic: "t", id: "1-1", fields: fields{"a\xff", "\x00\xfe", "b", ""}}
	got, err := unpack("t", "1-1", 3, d.pack(first, "why"))
	if err != nil || !slices.Equal(got.fields, d.fields) || got.deliveries != 3 || !got.first.Equal(first) || !got.parked {
		t.Errorf("unpack = %+v, %v", got, err)
	}
	if got, err := unpack("t", "1-1", 3, []byte("junk")); err == nil || !slices.Equal(got.fields, fields{"parcel", "junk"}) {
		t.Errorf("unpack of junk = %+v, %v", got, err)
	}
}

func TestWhatIsBeingSettledMayComeAgain(t *testing.T) {
	f := newFlight()
	d := func() *delivery { return &delivery{topic: "t", id: "1-1", parked: true} }
	first, again, known := d(), d(), d()
	f.add([]*delivery{first})
	if fresh := f.add([]*delivery{known}); len(fresh) != 0 {
		t.Error("what is in flight was taken up twice")
	}
	f.settle([]outcome{{d: first}})
	if fresh := f.add([]*delivery{again}); len(fresh) != 1 {
		t.Error("what came again while it was being settled is lost")
	}
	if f.remove(first); !f.has("t", "1-1") {
		t.Error("the end of the first delivery ended the second")
	}
	if f.remove(again); f.len() != 0 {
		t.Error("something is left in flight")
	}
}

func TestBackoffGrowsWithinBounds(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: 10, 2: 20, 3: 40, 4: 70, 5: 70, 1000: 70} {
		for range 50 {
			if got := backoff(10, 70, failures); got < want/2 || got > want {
				t.Errorf("backoff after %d failures is %d; want %d to %d", failures, got, want/2, want)
			}
		}
	}
}

func TestGate(t *testing.T) {
	var g gate
	now := time.Now()
	for i, ms := range []int64{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		until := g.close(now)
		if got := until.Sub(now).Milliseconds(); got != ms {
			t.Errorf("pause %d is %d ms; want %d", i, got, ms)
		}
		if again := g.close(until.Add(-1)); !again.Equal(until) {
			t.Errorf("a pause while closed moved the end by %s", again.Sub(until))
		}
		now = until
	}
	g.open()
	if !g.wait(t.Context()) || g.close(now).Sub(now) != pauseLeast {
		t.Error("an open gate remembers")
	}
}
