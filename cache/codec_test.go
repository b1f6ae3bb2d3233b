package cache

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mythiccache/cache/version"
)

// drawEntry makes any entry as it is once stored.
func drawEntry(t *rapid.T) Entry {
	ms := func(name string) time.Time { return time.UnixMilli(rapid.Int64Range(1, 1<<48-1).Draw(t, name)) }
	e := Entry{
		View: "v", Key: "k",
		Negative: rapid.Bool().Draw(t, "negative"),
		Owned:    rapid.Bool().Draw(t, "owned"),
		Saved:    ms("saved"), FreshUntil: ms("fresh until"),
		LoadTook: time.Duration(rapid.Uint32().Draw(t, "cost")) * time.Microsecond,
	}
	if e.Owned {
		e.Owner = rapid.String().Draw(t, "owner")
	}
	if !e.Negative {
		e.Body = rapid.SliceOf(rapid.Byte()).Draw(t, "body")
	}
	if rapid.Bool().Draw(t, "clock version") {
		e.Version = version.At(time.UnixMicro(rapid.Int64Range(0, 1<<50).Draw(t, "at")))
		return e
	}
	e.Snapshot = version.Snapshot{Epoch: rapid.Uint64Max(1<<48-1).Draw(t, "epoch"), Xmin: rapid.Uint64Range(3, 1<<60).Draw(t, "xmin")}
	e.Snapshot.Xmax = e.Snapshot.Xmin
	for range rapid.IntRange(0, 9).Draw(t, "open") {
		e.Snapshot.Xip = append(e.Snapshot.Xip, e.Snapshot.Xmax+rapid.Uint64Max(300).Draw(t, "gap"))
		e.Snapshot.Xmax = e.Snapshot.Xip[len(e.Snapshot.Xip)-1] + 1
	}
	e.Version = e.Snapshot.Version()
	return e
}

func TestEntriesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawEntry(t)
		b, err := appendEntry(nil, want, "0123abcd")
		if err != nil {
			t.Fatal(err)
		}
		got, h, err := decodeEntry("v", "k", b)
		if err != nil || h.run != "0123abcd" || h.token != "" || !h.deadline.IsZero() {
			t.Fatalf("header %+v, %v", h, err)
		}
		if !want.Negative {
			want.ETag = got.ETag
			if got.Body == nil || len(got.ETag) != 18 {
				t.Fatalf("body %q, ETag %s", got.Body, got.ETag)
			}
		}
		if !bytes.Equal(got.Body, want.Body) {
			t.Fatalf("body %q became %q", want.Body, got.Body)
		}
		got.Body, want.Body = nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v became %+v", want, got)
		}
		if over := len(b) - len(want.Owner) - headerLen; over > 0 && len(want.Snapshot.Xip) == 0 && want.Negative && over > 30 {
			t.Fatalf("%d bytes beside header and owner", over)
		}
	})
}

func TestAnnouncementsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Filled{
			Entry:   drawEntry(t),
			Outcome: rapid.SampledFrom([]Outcome{Accepted, Refused, Failed}).Draw(t, "outcome"),
			Taken:   time.UnixMicro(rapid.Int64Range(1, 1<<50).Draw(t, "taken")),
			At:      time.UnixMicro(rapid.Int64Range(1, 1<<50).Draw(t, "at")),
			Reason:  rapid.String().Draw(t, "reason"),
		}
		want.Entry.View, want.Entry.Key = rapid.String().Draw(t, "view"), rapid.String().Draw(t, "key")
		if rapid.Bool().Draw(t, "asked") {
			want.MinXid = &MinXid{Epoch: rapid.Uint64().Draw(t, "asked epoch"), Xid: rapid.Uint64Min(1).Draw(t, "asked xid")}
		}
		if want.Outcome == Failed {
			want.Entry = Entry{View: want.Entry.View, Key: want.Entry.Key}
		}
		b, err := want.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		view, key, err := announcedKey(string(b))
		if err != nil || view != want.Entry.View || key != want.Entry.Key {
			t.Fatalf("announced for %q %q, %v", view, key, err)
		}
		got, err := decodeFilled(string(b))
		if err != nil || !bytes.Equal(got.Entry.Body, want.Entry.Body) {
			t.Fatalf("%+v became %+v, %v", want, got, err)
		}
		want.Entry.ETag, want.Entry.Body, got.Entry.Body = got.Entry.ETag, nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v became %+v", want, got)
		}
	})
}

func TestUnknownBytesAreCorrupt(t *testing.T) {
	good, err := appendEntry(nil, Entry{Version: version.Snapshot{Epoch: 1, Xmin: 5, Xmax: 5}.Version(), Owned: true, Owner: "me", Body: []byte("x")}, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(b []byte) []byte{
		"schema":      func(b []byte) []byte { b[0] = '2'; return b },
		"state":       func(b []byte) []byte { b[offState] = 'x'; return b },
		"version":     func(b []byte) []byte { b[offVersion] = 'G'; return b },
		"flags":       func(b []byte) []byte { b[headerLen] = 0x80; return b },
		"header only": func(b []byte) []byte { return b[:headerLen] },
		"cut header":  func(b []byte) []byte { return b[:headerLen-1] },
		"cut etag":    func(b []byte) []byte { return b[:len(b)-2] },
		"long owner":  func(b []byte) []byte { b[headerLen+1] = 0x7f; return b },
		"empty":       func([]byte) []byte { return nil },
	} {
		if e, _, err := decodeEntry("v", "k", spoil(bytes.Clone(good))); !errors.Is(err, errCorrupt) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	if _, ok := decodeViewKey("2" + strings.Repeat("0", viewKeyLen-1)); ok {
		t.Error("a view's key of another schema was read")
	}
}

func FuzzDecodeEntry(f *testing.F) {
	s, _ := version.ParseSnapshot(1, "10:20:10,14,15")
	for _, e := range []Entry{
		{Version: s.Version(), Snapshot: s, Owned: true, Owner: "me", Body: []byte("{}")},
		{Version: version.At(time.UnixMilli(1)), Negative: true},
	} {
		b, err := appendEntry(nil, e, "0123abcd")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:headerLen])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, h, err := decodeEntry("v", "k", b)
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Fatalf("not errCorrupt: %v", err)
			}
			return
		}
		if b[0] != schema || h.state != stateFence && e.Version != h.version {
			t.Fatalf("decoded %q as %+v", b, e)
		}
		if h.state == stateFence || e.Snapshot.Xmax == 0 && e.Snapshot.Epoch != 0 {
			return
		}
		again, err := appendEntry(nil, e, h.run)
		if err != nil {
			t.Fatalf("decoded what cannot be encoded: %v", err)
		}
		back, _, err := decodeEntry("v", "k", again)
		if err != nil || !bytes.Equal(back.Body, e.Body) || back.Owner != e.Owner || back.Version != e.Version {
			t.Fatalf("%+v became %+v, %v", e, back, err)
		}
	})
}

func FuzzDecodeFilled(f *testing.F) {
	b, err := Filled{Entry: Entry{View: "v", Key: "k", Body: []byte("{}")}, Outcome: Accepted, Reason: "r"}.append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b))
	f.Add("1f\x01v\x01k")
	f.Fuzz(func(t *testing.T, b string) {
		filled, err := decodeFilled(b)
		if err != nil {
			return
		}
		view, key, err := announcedKey(b)
		if err != nil || view != filled.Entry.View || key != filled.Entry.Key {
			t.Fatalf("%q %q, %v of %+v", view, key, err, filled)
		}
	})
}
