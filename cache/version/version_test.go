package version_test

import (
	"bytes"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mythiccache/cache/version"
)

// drawSnapshot makes any well-formed snapshot.
func drawSnapshot(t *rapid.T) version.Snapshot {
	s := version.Snapshot{
		Epoch: rapid.Uint64Max(1<<48-1).Draw(t, "epoch"),
		Xmin:  rapid.Uint64Max(math.MaxUint64-1<<20).Draw(t, "xmin"),
	}
	s.Xmax = s.Xmin
	for range rapid.IntRange(0, 20).Draw(t, "in progress") {
		xid := s.Xmax + rapid.Uint64Max(300).Draw(t, "gap")
		s.Xip = append(s.Xip, xid)
		s.Xmax = xid + 1
	}
	s.Xmax += rapid.Uint64Max(300).Draw(t, "tail")
	return s
}

func TestTextOrderIsVersionOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawSnapshot(t).Version(), drawSnapshot(t).Version()
		if got, want := strings.Compare(a.String(), b.String()), a.Compare(b); got != want {
			t.Fatalf("text order %d, Compare %d: %s %s", got, want, a, b)
		}
		back, err := version.Parse(a.String())
		if err != nil || back != a {
			t.Fatalf("Parse(%s) = %v, %v", a, back, err)
		}
	})
}

// A history of transactions that begin and complete: every later snapshot must
// compare at or above every earlier one, and above where one completed between.
func TestSnapshotsOfAHistoryAreOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		next := rapid.Uint64Range(3, 1<<40).Draw(t, "first xid")
		open := map[uint64]bool{}
		take := func() version.Snapshot {
			// As GetSnapshotData does: xmax is one past the latest completed.
			s := version.Snapshot{Epoch: 7, Xmax: next}
			for s.Xmax > 0 && open[s.Xmax-1] {
				s.Xmax--
			}
			s.Xmin = s.Xmax
			for xid := range open {
				if xid < s.Xmax {
					s.Xmin = min(s.Xmin, xid)
				}
			}
			for xid := s.Xmin; xid < s.Xmax; xid++ {
				if open[xid] {
					s.Xip = append(s.Xip, xid)
				}
			}
			return s
		}
		last := take()
		for range 50 {
			if len(open) == 0 || rapid.Bool().Draw(t, "begin") {
				open[next] = true
				next++
				continue
			}
			done := rapid.SampledFrom(slices.Sorted(maps.Keys(open))).Draw(t, "complete")
			delete(open, done)
			now := take()
			if now.Version().Compare(last.Version()) <= 0 {
				t.Fatalf("%s is not newer than %s", now, last)
			}
			if !now.Sees(done) || last.Sees(done) {
				t.Fatalf("xid %d: seen by %s: %v, by %s: %v", done, last, last.Sees(done), now, now.Sees(done))
			}
			last = now
		}
	})
}

func TestSnapshotRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		parsed, err := version.ParseSnapshot(s.Epoch, s.String())
		if err != nil || parsed.String() != s.String() || parsed.Version() != s.Version() {
			t.Fatalf("ParseSnapshot(%s) = %s, %v", s, parsed, err)
		}
		encoded, _ := s.AppendBinary(nil)
		decoded, rest, err := version.DecodeSnapshot(s.Version(), append(encoded, "rest"...))
		if err != nil || decoded.String() != s.String() || string(rest) != "rest" {
			t.Fatalf("DecodeSnapshot(%s) = %s, %q, %v", s, decoded, rest, err)
		}
	})
}

func TestBadTextIsRefused(t *testing.T) {
	for _, text := range []string{"", "1", "1:2", "a:2:", "1:b:", "3:2:", "1:5:x", "1:5:3,2", "1:5:7", "1:5:0", "1:2:3:4", "-1:2:"} {
		if _, err := version.ParseSnapshot(1, text); err == nil {
			t.Errorf("ParseSnapshot(%q) was accepted", text)
		}
	}
	if _, err := version.ParseSnapshot(1<<48, "1:1:"); err == nil {
		t.Error("an epoch above 48 bits was accepted")
	}
	for _, text := range []string{"", strings.Repeat("0", 35), strings.Repeat("0", 35) + "G", strings.Repeat("A", 36)} {
		if _, err := version.Parse(text); err == nil {
			t.Errorf("Parse(%q) was accepted", text)
		}
	}
}

func TestAtIsBelowEverySnapshot(t *testing.T) {
	clock := version.At(time.UnixMilli(1_800_000_000_000))
	snapshot := version.Snapshot{Epoch: 1, Xmin: 3, Xmax: 3}.Version()
	if clock.Compare(snapshot) >= 0 || clock.Compare(version.Version{}) <= 0 {
		t.Errorf("%s is not between zero and %s", clock, snapshot)
	}
	if later := version.At(time.UnixMilli(1_800_000_000_001)); clock.Compare(later) >= 0 {
		t.Errorf("%s is not older than %s", clock, later)
	}
}

func FuzzDecodeSnapshot(f *testing.F) {
	s, _ := version.ParseSnapshot(1, "10:20:10,14,15")
	seed, _ := s.AppendBinary(nil)
	f.Add(s.Version().String(), seed)
	f.Fuzz(func(t *testing.T, text string, b []byte) {
		v, err := version.Parse(text)
		if err != nil {
			return
		}
		s, rest, err := version.DecodeSnapshot(v, b)
		if err != nil {
			return
		}
		if _, err := version.ParseSnapshot(s.Epoch, s.String()); err != nil {
			t.Fatalf("decoded a snapshot that is none: %v", err)
		}
		again, _ := s.AppendBinary(nil)
		if !bytes.HasPrefix(b, again) && len(again) > len(b)-len(rest) {
			t.Fatalf("the decoded form is shorter than its own encoding")
		}
	})
}
