package consumers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/migrations"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// The events of a run come in any order, some again and again, to three workers at
// the same time: the document is what they say in the order of their times. An
// event that was applied is in every fresh answer from then on.
func TestOrderOfRunEventsDoesNotMatter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, string(view.Mythic()))
	w.exec(migrations.DemoTables())
	crew := []*clerk{w.clerk(), w.clerk(), w.clerk()}
	number := 0
	rapid.Check(t, func(t *rapid.T) {
		number++
		run := fmt.Sprintf("R%d", number)
		events := drawRun(t, run)
		told := rapid.Permutation(slices.Concat(events,
			rapid.SliceOfN(rapid.SampledFrom(events), 0, 5).Draw(t, "repeats"))).Draw(t, "order")
		errs := make([]error, len(crew))
		var all sync.WaitGroup
		for i, c := range crew {
			all.Go(func() {
				for n := i; n < len(told); n += len(crew) {
					errs[i] = errors.Join(errs[i], c.work(told[n]))
				}
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		want := fold(run, events)
		for _, c := range crew { // what was filled on the way, and what is filled now
			if got, err := c.document(run); err != nil || got != nil && !reflect.DeepEqual(got, want) {
				t.Fatalf("%v\n%v\nwant\n%v", err, got, want)
			}
			if err := c.filler.Fill(c.ctx, w.view("run_status"), run, FillOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := crew[0].document(run); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\n%v\nwant\n%v", err, got, want)
		}
	})
}

// clerk is what one worker process has for run events.
type clerk struct {
	*world
	store       *cache.Store
	filler      *Filler
	runs        *Runs
	invalidator *Invalidator
}

func (w *world) clerk() *clerk {
	w.Helper()
	c := &clerk{world: w, store: w.newStore()}
	var err error
	if c.filler, err = NewFiller(c.store, w.loader, FillerOptions{}); err != nil {
		w.Fatal(err)
	}
	if c.invalidator, err = NewInvalidator(c.store, w.views, InvalidatorOptions{}); err != nil {
		w.Fatal(err)
	}
	c.runs = NewRuns(w.pool, c.filler, w.views, RunsOptions{})
	return c
}

// work keeps an event, tells of the change of its table as the relay does, and demands
// that a reader finds it.
func (c *clerk) work(e event.Event) error {
	if err := c.runs.Handle(stream.FromEvent(e)); err != nil {
		return err
	}
	var at string
	err := c.pool.QueryRow(c.ctx, "SELECT mythic_cache.version_text(mythic_cache.current_epoch(), pg_current_snapshot())").Scan(&at)
	if err != nil {
		return err
	}
	seen, err := version.Parse(at)
	if err != nil {
		return err
	}
	if err := errors.Join(c.invalidator.Handle(c.ctx, messages(changed("run_status", e.Subject, seen)))...); err != nil {
		return err
	}
	got, err := c.document(e.Subject)
	if err != nil || got == nil {
		return err
	}
	if marks, _ := got["marks"].(map[string]any); marks[mark(e)] != true {
		return fmt.Errorf("%s of %s was applied and is not in %v", mark(e), e.Subject, got)
	}
	return nil
}

// document returns what a reader gets as fresh, nil for nothing.
func (c *clerk) document(run string) (map[string]any, error) {
	v, ok := c.views.Lookup("run_status")
	if !ok {
		return nil, errors.New("no view run_status")
	}
	found, err := c.store.Read(context.WithoutCancel(c.ctx), cache.Query{View: v, Key: run})
	if err != nil || found.Status != cache.Hit {
		return nil, err
	}
	var document map[string]any
	err = json.Unmarshal(found.Entry.Body, &document)
	return document, err
}

// mark names an event among those of its run.
func mark(e event.Event) string { return e.Source + " " + e.ID }

// drawRun draws the events of a run. Some have the same time, and some the same id
// from another source.
func drawRun(t *rapid.T, run string) []event.Event {
	events := make([]event.Event, rapid.IntRange(1, 8).Draw(t, "events"))
	for i := range events {
		e := event.Event{
			ID: fmt.Sprintf("%s-%d", run, i/2), Source: []string{"app", "other"}[i%2], Subject: run,
			Type: rapid.SampledFrom([]string{event.RunStarted, event.RunProgress, event.RunFinished, event.RunFailed}).Draw(t, "type"),
			Time: time.Date(2026, 1, 1, 0, 0, rapid.IntRange(0, 3).Draw(t, "second"), 0, time.UTC),
		}
		patch := drawPatch(t)
		patch["marks"] = map[string]any{mark(e): true}
		e.Data, _ = json.Marshal(patch)
		events[i] = e
	}
	return events
}

// drawPatch draws a merge patch that meets others in what it changes.
func drawPatch(t *rapid.T) map[string]any {
	leaf := rapid.SampledFrom([]any{nil, "a", "b", 7.0, true, []any{"x", nil}})
	nest := rapid.MapOfN(rapid.SampledFrom([]string{"pdf", "html", "book_generated"}), leaf, 0, 2)
	patch := map[string]any{}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
		"message", "status", "progress_percentage", "stages", "files", "profile",
	}), 0, 4, rapid.ID).Draw(t, "members") {
		if rapid.Bool().Draw(t, "nested") {
			patch[name] = nest.Draw(t, name)
		} else {
			patch[name] = leaf.Draw(t, name)
		}
	}
	return patch
}

// fold is what the documentation says of a run's document.
func fold(run string, events []event.Event) map[string]any {
	sorted := slices.Clone(events)
	slices.SortFunc(sorted, func(a, b event.Event) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Time.Compare(b.Time), strings.Compare(a.ID, b.ID), strings.Compare(a.Source, b.Source))
	})
	blank := func() map[string]any {
		return map[string]any{
			"message": nil, "style": nil, "format": nil, "files": map[string]any{}, "profile": map[string]any{},
			"stages": map[string]any{"data_collected": false, "images_downloaded": false, "book_generated": false},
			"status": "processing", "current_stage": nil, "progress_percentage": nil, "error_message": nil,
		}
	}
	folded := merge(nil, blank())
	for _, e := range sorted {
		patch := map[string]any{}
		switch e.Type {
		case event.RunFinished:
			patch["status"] = "completed"
		case event.RunFailed:
			patch["status"] = "failed"
		}
		_ = json.Unmarshal(e.Data, &patch) // it was made by Marshal
		folded = merge(folded, patch)
	}
	document, stages := blank(), blank()["stages"].(map[string]any)
	maps.Copy(document, folded.(map[string]any))
	if told, ok := document["stages"].(map[string]any); ok {
		maps.Copy(stages, told)
	}
	document["stages"], document["runId"] = stages, run
	return document
}

// rank puts what ends a run behind all else.
func rank(e event.Event) int {
	if e.Type == event.RunFinished || e.Type == event.RunFailed {
		return 1
	}
	return 0
}

// merge is RFC 7396, section 2.
func merge(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	into, ok := target.(map[string]any)
	if !ok {
		into = map[string]any{}
	}
	for name, value := range members {
		if value == nil {
			delete(into, name)
		} else {
			into[name] = merge(into[name], value)
		}
	}
	return into
}
