package producers

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

const blank = `{ "runId" : "R", "status" : "processing", "current_stage" : null, "progress_percentage" : null, "error_message" : null, "message" : null, "style" : null, "format" : null, ` +
	`"stages" : {"book_generated": false, "data_collected": false, "images_downloaded": false}, "files" : {}, "profile" : {} }`

func TestRunDocumentFoldsEventsInAnyOrder(t *testing.T) {
	b := newBed(t)
	document := func() string {
		return one[string](b, `SELECT mythic_cache.run_document('R', false, NULL, NULL, NULL, NULL)::text`)
	}
	if got := document(); got != blank {
		t.Errorf("without events:\n%s", got)
	}
	events := []string{
		`('app', '1', 'R', 'run.started', '2026-01-01 00:00:01Z', '{"message": "hello", "style": "classic", "profile": {"name": "ann"}}')`,
		`('app', '2', 'R', 'run.progress', '2026-01-01 00:00:02Z', '{"status": "scraping", "current_stage": "one", "progress_percentage": 10, "stages": {"data_collected": true}}')`,
		`('app', '3', 'R', 'run.progress', '2026-01-01 00:00:02Z', '{"current_stage": "two", "style": null, "extra": 1, "stages": {"images_downloaded": null}}')`,
		`('app', '4', 'R', 'run.progress', '2026-01-01 00:00:09Z', '{"status": "late", "progress_percentage": 55, "runId": "other"}')`,
		`('app', '5', 'R', 'run.finished', '2026-01-01 00:00:05Z', '{"progress_percentage": 100, "files": {"pdf": "x"}}')`,
		`('app', '6', 'R', 'run.progress', '2026-01-01 00:00:03Z', '[1]')`,
		`('app', '7', 'R', 'run.progress', '2026-01-01 00:00:03Z', NULL)`,
		`('app', '8', 'other', 'run.failed', '2026-01-01 00:00:03Z', '{}')`,
	}
	want := `{ "runId" : "R", "status" : "completed", "current_stage" : "two", "progress_percentage" : 100, "error_message" : null, "message" : "hello", "style" : null, "format" : null, ` +
		`"stages" : {"book_generated": false, "data_collected": true, "images_downloaded": false}, "files" : {"pdf": "x"}, "profile" : {"name": "ann"}, "extra" : 1 }`
	for range 5 {
		rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		b.exec(`DELETE FROM mythic_cache.run_events; INSERT INTO mythic_cache.run_events VALUES ` + strings.Join(events, ", "))
		if got := document(); got != want {
			t.Errorf("%s\n got %s\nwant %s", strings.Join(events, "\n"), got, want)
		}
	}
	// The session row wins for its four, NULLs included, whatever its types are.
	var got map[string]any
	if err := json.Unmarshal([]byte(one[string](b, `SELECT mythic_cache.run_document('R', true, 'pending'::varchar, NULL, 33, 'broke')::text`)), &got); err != nil {
		t.Fatal(err)
	}
	if got["status"] != "pending" || got["current_stage"] != nil || got["progress_percentage"] != 33.0 || got["error_message"] != "broke" || got["message"] != "hello" {
		t.Errorf("with a session: %v", got)
	}
}
