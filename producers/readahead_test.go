package producers

import (
	"errors"
	"testing"

	"mythiccache/producers/event"
)

// A reading that began where sending never came is none of what is asked for.
func TestAReadingFromElsewhereIsDropped(t *testing.T) {
	b := newBed(t)
	conn := b.connect()
	if err := setUp(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	ahead := readAhead{conn: conn}
	start := fromStart(1, "t")
	b.exec(`SELECT mythic_cache.publish('run.started', 'r' || n) FROM generate_series(1, 4) n`)
	first, err := ahead.take(t.Context(), start, 2, remapKeys)
	if err != nil || first.found != 2 || !first.more {
		t.Fatalf("%d rows, %v", first.found, err)
	}
	steps := first.steps(start, func(event.Event, string) {})
	next := steps[len(steps)-1].to
	ahead.begin(t.Context(), next, 2, remapKeys)
	again, err := ahead.take(t.Context(), start, 2, remapKeys)
	if err != nil || again.rows[0].id != first.rows[0].id {
		t.Fatalf("%v, %v: the rows behind another position", again.rows, err)
	}
	ahead.begin(t.Context(), next, 2, remapKeys)
	second, err := ahead.take(t.Context(), next, 2, remapKeys)
	if err != nil || second.rows[0].id <= first.rows[1].id {
		t.Errorf("%v, %v", second.rows, err)
	}
}

// Of steps that travel together, those behind one that fails are not done.
func TestAppendStopsAtTheStepThatFails(t *testing.T) {
	t.Parallel()
	s, client := newLog(t)
	ctx := t.Context()
	if err := s.Place(ctx, "", at(5), true); err != nil {
		t.Fatal(err)
	}
	client.Set(ctx, s.keys.Topic("books"), "no stream", 0)
	run := func(subject string) []event.Event { return []event.Event{{Type: "run.started", Subject: subject}} }
	steps := []step{
		{events: run("a"), to: at(6)},
		{events: []event.Event{{Type: "books.changed", View: "v", Subject: "b"}}, to: at(7)},
		{events: run("c"), to: at(8)},
	}
	client.ScriptFlush(ctx)
	done, err := s.Append(ctx, at(5), steps)
	if done != 1 || err == nil || errors.Is(err, errMoved) {
		t.Errorf("%d done, %v", done, err)
	}
	if where := client.HGet(ctx, s.keys.Position(), "position").Val(); where != at(6).String() {
		t.Errorf("the position is %q", where)
	}
	client.Del(ctx, s.keys.Topic("books"))
	if done, err = s.Append(ctx, at(6), steps[1:]); done != 2 || err != nil {
		t.Errorf("%d done, %v", done, err)
	}
	// All of them again, as after a reply that was lost: another position is there.
	if done, err = s.Append(ctx, at(5), steps); done != 0 || !errors.Is(err, errMoved) {
		t.Errorf("%d done again, %v", done, err)
	}
	if n := client.XLen(ctx, s.keys.Topic("run")).Val(); n != 2 {
		t.Errorf("%d entries, not 2", n)
	}
}
