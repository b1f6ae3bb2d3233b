package producers

import (
	"errors"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"mythiccache/cache/version"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

func newLog(t *testing.T) (*streams, *redis.Client) {
	t.Helper()
	client := testserver.NewRedis(t).Client(t)
	return newStreams(client, stream.NewKeys("p:")), client
}

func at(xmax uint64) position {
	p := fromStart(7, "term")
	p.seen.Xmin, p.seen.Xmax = xmax, xmax
	return p
}

func TestAppendComparesAndSets(t *testing.T) {
	t.Parallel()
	s, client := newLog(t)
	ctx := t.Context()
	run := s.keys.Topic("run")
	events := []event.Event{{Type: "run.started", Subject: "a"}, {Type: "books.changed", View: "v", Subject: "b"}, {Type: "run.started", Subject: "c"}}
	if _, err := s.Append(ctx, at(5), []step{{events: events, to: at(6)}}); !errors.Is(err, errMoved) {
		t.Errorf("without a position: %v", err)
	}
	if err := s.Place(ctx, "", at(5), true); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second is a try after a lost reply
		if _, err := s.Append(ctx, at(5), []step{{events: events, to: at(6)}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := client.XLen(ctx, run).Val(); n != 2 {
		t.Errorf("%d entries", n)
	}
	// A leader that was paused: another has taken the position under its own term.
	taken := at(6)
	taken.term = "other"
	if err := s.Place(ctx, at(6).String(), taken, false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(ctx, at(6), []step{{events: events, to: at(7)}}); !errors.Is(err, errMoved) {
		t.Errorf("after another took the lead: %v", err)
	}
	if err := s.Place(ctx, at(6).String(), at(8), false); !errors.Is(err, errMoved) {
		t.Errorf("Place after another took the lead: %v", err)
	}
	if n := client.XLen(ctx, run).Val(); n != 2 {
		t.Errorf("%d entries", n)
	}
}

// Lua has no rollback: whatever is wrong with the last stream, nothing is written
// to the first.
func TestAppendWritesAllOrNothing(t *testing.T) {
	t.Parallel()
	s, client := newLog(t)
	ctx := t.Context()
	if err := s.Place(ctx, "", at(5), true); err != nil {
		t.Fatal(err)
	}
	events := []event.Event{{Type: "a.x", Subject: "1"}, {Type: "b.x", Subject: "2"}}
	unchanged := func(name string, entries int64) {
		t.Helper()
		if n := client.XLen(ctx, s.keys.Topic("a")).Val(); n != entries {
			t.Errorf("%s: %d entries", name, n)
		}
	}
	client.Set(ctx, s.keys.Topic("b"), "a string", 0)
	if _, err := s.Append(ctx, at(5), []step{{events: events, to: at(6)}}); err == nil || !strings.Contains(err.Error(), "something else than a stream") {
		t.Errorf("a string in a stream's place: %v", err)
	}
	unchanged("a string", 0)
	client.Del(ctx, s.keys.Topic("b"))
	client.ConfigSet(ctx, "maxmemory", "1")
	if _, err := s.Append(ctx, at(5), []step{{events: events, to: at(6)}}); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("out of memory: %v", err)
	}
	if _, _, err := s.Look(ctx, "", fencings{}); !errors.Is(err, errFull) {
		t.Errorf("out of memory, Look: %v", err)
	}
	client.ConfigSet(ctx, "maxmemory", "0")
	unchanged("out of memory", 0)
	if _, err := s.Append(ctx, at(5), []step{{events: events, to: at(6)}}); err != nil {
		t.Fatal(err)
	}
	client.Del(ctx, s.keys.Topic("b"))
	if _, err := s.Append(ctx, at(6), []step{{events: events, to: at(7)}}); !errors.Is(err, errLost) {
		t.Errorf("a deleted stream: %v", err)
	}
	unchanged("a deleted stream", 1)
}

func TestLookNotesTheRunOnlyWhereNothingIsLeftToDo(t *testing.T) {
	t.Parallel()
	s, client := newLog(t)
	ctx := t.Context()
	run := runID(t, client)
	if err := s.Place(ctx, "", at(5), true); err != nil {
		t.Fatal(err)
	}
	if err := s.NoteFenced(ctx, at(5), run, map[string]shape{"a": {"t", "1 2"}}); err != nil {
		t.Fatal(err)
	}
	seen, err := s.Fenced(ctx, []string{"a", "b"})
	if err != nil || seen.run != run || seen.shapes["a"] != "t 1 2" || seen.shapes["b"] != "" {
		t.Fatalf("Redis has noted %+v, %v", seen, err)
	}
	for _, c := range []struct {
		what     string
		expected position
		seen     fencings
		noted    bool
	}{
		{"rows wait", at(5), fencings{}, false},
		{"another position", at(4), seen, false},
		{"another run", at(5), fencings{strings.Repeat("0", len(run)), seen.shapes}, false},
		{"another shape", at(5), fencings{run, map[string]string{"a": "t 1 3"}}, false},
		{"a shape too many", at(5), fencings{run, map[string]string{"a": ""}}, false},
		{"a shape too few", at(5), fencings{run, map[string]string{"a": "t 1 2", "b": "t "}}, false},
		{"as it was", at(5), seen, true},
	} {
		if _, _, err := s.Look(ctx, c.expected.String(), c.seen); err != nil {
			t.Fatal(err)
		}
		if noted := client.HGet(ctx, s.keys.Position(), PositionRunID).Val() == run; noted != c.noted {
			t.Errorf("%s: noted %v", c.what, noted)
		}
	}
}

// The fences were in the Redis of before, which may have lost them since.
func TestAShapeIsNotedInTheRunOfItsFenceAlone(t *testing.T) {
	t.Parallel()
	s, client := newLog(t)
	ctx := t.Context()
	if err := s.Place(ctx, "", at(5), true); err != nil {
		t.Fatal(err)
	}
	another := strings.Repeat("0", len(runID(t, client)))
	if err := s.NoteFenced(ctx, at(5), another, map[string]shape{"a": {"t", ""}}); !errors.Is(err, errRestarted) {
		t.Errorf("got %v", err)
	}
	if found, err := s.Fenced(ctx, []string{"a"}); err != nil || found.shapes["a"] != "" {
		t.Errorf("found %q, %v", found.shapes, err)
	}
}

func TestPositionRoundTrips(t *testing.T) {
	t.Parallel()
	snapshot := func(t *rapid.T, name string) version.Snapshot {
		s := version.Snapshot{Epoch: 7, Xmin: rapid.Uint64Range(1, 1<<40).Draw(t, name)}
		s.Xmax = s.Xmin
		for range rapid.IntRange(0, 5).Draw(t, "open") {
			s.Xip = append(s.Xip, s.Xmax)
			s.Xmax += rapid.Uint64Range(1, 9).Draw(t, "gap")
		}
		return s
	}
	rapid.Check(t, func(t *rapid.T) {
		p := position{epoch: 7, term: "abc", seen: snapshot(t, "seen")}
		if rapid.Bool().Draw(t, "part") {
			p.part = &part{target: snapshot(t, "target"), xid: rapid.Uint64().Draw(t, "xid"), id: rapid.Int64().Draw(t, "id")}
		}
		back, err := parsePosition(p.String())
		if err != nil || back.String() != p.String() {
			t.Fatalf("%s became %s, %v", p, back, err)
		}
	})
	for _, text := range []string{"", "1", "2 7 t 1:1:", "1 x t 1:1:", "1 7 t 1", "1 7 t 1:1: 1:1:", "1 7 t 1:1: x 1 1", "1 7 t 1:1: 1:1: x 1", "1 7 t 1:1: 1:1: 1 x"} {
		if _, err := parsePosition(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}
