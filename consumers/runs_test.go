package consumers

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
	"mythiccache/migrations"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

func runEvent(id, kind, run, data string) event.Event {
	return event.Event{ID: id, Type: kind, Source: "app", Subject: run, Data: json.RawMessage(data), Time: time.Now()}
}

func (w *world) runs() *Runs { return NewRuns(w.pool, w.filler, w.views, RunsOptions{}) }

func TestRunEventsAreKeptOnceAndShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, string(view.Mythic()))
	w.exec(migrations.DemoTables())
	r := w.runs()
	started := runEvent("1", event.RunStarted, "R", "")
	progress := runEvent("2", event.RunProgress, "R", `{"current_stage":"scraping","files":{"a":1}}`)
	for _, e := range []event.Event{started, progress, progress, started} {
		if err := r.Handle(stream.FromEvent(e)); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.text("SELECT count(*)::text FROM mythic_cache.run_events"); n != "2" {
		t.Errorf("%s events are kept, want 2", n)
	}
	if body := w.body("run_status", "R"); !strings.Contains(body, `"scraping"`) || !strings.Contains(body, `"runId":"R"`) {
		t.Errorf("run_status reads as %s", body)
	}
	if n := w.loads(); n != 2 {
		t.Errorf("%d loads for two events and two repetitions", n)
	}
}

func TestRunEventsThatCannotBeFoldedAreRejected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	r := w.runs()
	for name, e := range map[string]event.Event{
		"a list":         runEvent("1", event.RunProgress, "R", `[1]`),
		"a text":         runEvent("2", event.RunProgress, "R", `"{}"`),
		"null":           runEvent("3", event.RunProgress, "R", `null`),
		"a zero byte":    runEvent("4", event.RunProgress, "R", `{"a":"\u0000"}`),
		"another topic":  runEvent("5", "runs.progress", "R", `{}`),
		"unknown type":   runEvent("8", "run.paused", "R", `{}`),
		"malformed":      runEvent("6", event.RunProgress, "", `{}`),
		"a view, no run": {ID: "7", Type: event.RunProgress, View: "thing"},
	} {
		if err := r.Handle(stream.FromEvent(e)); !errors.Is(err, stream.ErrReject) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Handle(stream.FromEvent(runEvent("9", event.RunProgress, "R", " \n{}"))); err != nil {
		t.Errorf("an object with space before it: %v", err)
	}
	if n := w.text("SELECT count(*)::text FROM mythic_cache.run_events"); n != "1" {
		t.Errorf("%s events are kept, want 1", n)
	}
}

func TestRunEventsWaitForPostgres(t *testing.T) {
	t.Parallel()
	pg := testserver.NewPostgres(t, nil)
	w := newWorld(t, pg, things)
	r := w.runs()
	e := runEvent("1", event.RunStarted, "R", "")
	pg.Stop()
	if err := r.Handle(stream.FromEvent(e)); !errors.Is(err, stream.ErrPause) {
		t.Errorf("without PostgreSQL: %v", err)
	}
	if err := pg.Start(w.ctx); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "keep the event", func() error { return r.Handle(stream.FromEvent(e)) })
}
