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

// Two values may be equal and still be two keys. A change from one to the other
// concerns both.
func TestEqualValuesSpeltOtherwiseAreTwoKeys(t *testing.T) {
	b := newBed(t)
	b.exec(`CREATE EXTENSION citext; CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`)
	b.exec(`CREATE TABLE people (id int, email citext, price numeric, nick text COLLATE loose); CREATE TABLE cities (id int)`)
	b.exec(`INSERT INTO people VALUES (1, 'Bob', 1.0, 'Bo'); INSERT INTO cities VALUES (1)`)
	b.views = parse(t, `
views:
  email: {key: [k], load: "SELECT to_json(count(*)) FROM people WHERE email::text = $1", tables: {people: SELECT email FROM changed}}
  price: {key: [k], load: "SELECT to_json(count(*)) FROM people WHERE price::text = $1", tables: {people: SELECT price FROM changed}}
  nick: {key: [k], load: "SELECT to_json(count(*)) FROM people WHERE nick = $1", tables: {people: SELECT nick FROM changed}}
  joined:
    key: [k]
    load: "SELECT to_json(count(*)) FROM people JOIN cities USING (id) WHERE price::text = $1"
    tables: {people: SELECT p.price FROM changed p JOIN cities c ON c.id = p.id, cities: SELECT p.price FROM changed c JOIN people p ON p.id = c.id}
`)
	b.installQuietly()
	b.relay()
	got := b.changes(func() { b.exec(`UPDATE people SET email = 'bob', price = 1.00, nick = 'bo'`) })
	want := []string{
		"people.changed email Bob", "people.changed email bob", "people.changed joined 1.0", "people.changed joined 1.00",
		"people.changed nick Bo", "people.changed nick bo", "people.changed price 1.0", "people.changed price 1.00",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
