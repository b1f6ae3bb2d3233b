package event_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"mythiccache/producers/event"
)

func lookup(fields []string) func(string) string {
	return func(name string) string {
		for i := 0; i+1 < len(fields); i += 2 {
			if fields[i] == name {
				return fields[i+1]
			}
		}
		return ""
	}
}

func TestFieldsAndParseRoundTrip(t *testing.T) {
	whole := event.Event{
		ID: "1", Type: event.RunProgress, Source: "app", Subject: "RUN1",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC), View: "run_status",
		Data: json.RawMessage(`{"a":1}`), Version: strings.Repeat("0", 36), Traceparent: "00-x",
	}
	for _, want := range []event.Event{whole, {Type: "books.changed", Subject: "user_1"}} {
		got, err := event.Parse(lookup(want.Fields()))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Parse(Fields) = %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestMalformedIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		fields []string
		says   string
	}{
		"empty":             {nil, "type"},
		"no dot":            {[]string{"type", "books", "subject", "a"}, "type"},
		"no topic":          {[]string{"type", ".changed", "subject", "a"}, "type"},
		"brace in topic":    {[]string{"type", "a}b.changed", "subject", "a"}, "topic"},
		"no subject":        {[]string{"type", "run.started"}, "subject"},
		"fill without view": {[]string{"type", "fill.requested", "subject", "a"}, "view"},
		"fill without key":  {[]string{"type", "fill.requested", "view", "a"}, "subject"},
		"bad time":          {[]string{"type", "a.b", "subject", "a", "time", "yesterday"}, "time"},
		"bad data":          {[]string{"type", "a.b", "subject", "a", "data", "{"}, "data"},
		"long subject":      {[]string{"type", "a.b", "subject", strings.Repeat("x", 513)}, "subject"},
		"long data":         {[]string{"type", "a.b", "subject", "a", "data", `"` + strings.Repeat("x", 1<<20) + `"`}, "data"},
		"binary":            {[]string{"type", "a.b", "subject", "\xff\xfe"}, "subject"},
		"zero byte":         {[]string{"type", "a.b", "subject", "a\x00b"}, "subject"},
	} {
		_, err := event.Parse(lookup(c.fields))
		if !errors.Is(err, event.ErrMalformed) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v does not name %q", name, err, c.says)
		}
	}
}

func TestWholeViewNeedsNoSubject(t *testing.T) {
	e := event.Event{Type: event.TableChanged("books"), View: "user_books"}
	if err := e.Validate(); err != nil || e.Topic() != "books" {
		t.Errorf("Validate = %v, Topic = %q", err, e.Topic())
	}
}

func FuzzParse(f *testing.F) {
	f.Add("run.started", "RUN1", "2026-01-02T03:04:05Z", "{}")
	f.Add("a.b", "\x00", "", "null")
	f.Fuzz(func(t *testing.T, kind, subject, at, data string) {
		e, err := event.Parse(lookup([]string{"type", kind, "subject", subject, "time", at, "data", data}))
		if err != nil {
			return
		}
		again, err := event.Parse(lookup(e.Fields()))
		if err != nil || !again.Time.Equal(e.Time) || again.Type != e.Type || again.Subject != e.Subject || string(again.Data) != string(e.Data) {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}
