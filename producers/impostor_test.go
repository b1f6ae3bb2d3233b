package producers

import (
	"slices"
	"testing"
)

// Our functions run as whoever installed them, in the search_path of the app's
// tables. A function there that fits better than PostgreSQL's own is not called:
// whoever may make functions would else have the installer's rights.
func TestNoFunctionOfTheAppsIsTakenForPostgreSQLs(t *testing.T) {
	b := newBed(t)
	b.people()
	for _, f := range []string{
		`to_jsonb(record) RETURNS jsonb`, `unnest(text[]) RETURNS SETOF text`, `unnest(jsonb[]) RETURNS SETOF jsonb`, `cardinality(text[]) RETURNS int`,
		`array_length(text[], int) RETURNS int`, `jsonb_to_record(jsonb) RETURNS record`,
	} {
		b.exec(`CREATE FUNCTION public.` + f + ` LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'called as %', current_user; END $$`)
	}
	b.installQuietly()
	b.relay()
	got := b.changes(func() {
		b.exec(`UPDATE books SET title = 'mine' WHERE run_id = 'ann1'`)
		b.exec(`INSERT INTO processing_sessions (run_id, user_id) SELECT 'new', id FROM users WHERE clerk_user_id = 'ann'`)
	})
	want := []string{"books.changed user_books ann", "owners.changed run_status new", "processing_sessions.changed run_status new"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
