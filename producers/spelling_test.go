package producers

import (
	"slices"
	"testing"
)

// The key of a day is the day that a load comes to, spelt as a load's key is,
// whatever the app's session and the database have set:
//
//  1. the app in New York writes a row at 20:00 on the 1st, which is the 2nd in UTC;
//  2. loads tell times in UTC, so the row is in the document of 2024-02-02;
//  3. an event that names 2024-02-01, or 01.02.2024, leaves that document as it was.
func TestADayIsSpeltAsLoadsSpellIt(t *testing.T) {
	b := newBed(t)
	b.exec(`CREATE TABLE visits (at timestamptz, place int); CREATE TABLE places (id int)`)
	b.exec(`INSERT INTO places VALUES (1)`)
	b.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET datestyle = %L', current_database(), 'SQL, DMY'); END $$`)
	b.views = parse(t, `
views:
  day:
    key: [day]
    load: "SELECT to_json(count(*)) FROM visits WHERE at::date = $1"
    tables: {visits: SELECT at::date FROM changed}
  joined:
    key: [day]
    load: "SELECT to_json(count(*)) FROM visits JOIN places ON id = place WHERE at::date = $1"
    tables: {visits: SELECT c.at::date FROM changed c JOIN places p ON p.id = c.place, places: SELECT v.at::date FROM changed c JOIN visits v ON v.place = c.id}
`)
	b.install()
	b.relay()
	got := b.changes(func() {
		b.exec(`SET timezone = 'America/New_York'; SET datestyle = 'German'`)
		b.exec(`INSERT INTO visits VALUES ('2024-02-01 20:00', 1)`)
	})
	want := []string{"visits.changed day 2024-02-02", "visits.changed joined 2024-02-02"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
