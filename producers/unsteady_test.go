package producers

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/view"
)

// A warning for each load that may change by itself, and none for those that only seem
// to: what is in a text or a comment, a list that something has sorted.
func TestUnsteadyLoadsAreNamed(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), postgres.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, statement := range []string{
		`CREATE TABLE things (id text, n int, at timestamptz)`,
		`CREATE VIEW recent AS SELECT * FROM things WHERE at > now() - interval '1 day'`,
		`CREATE FUNCTION parsed(text) RETURNS json STABLE BEGIN ATOMIC SELECT json_agg(n) FROM things WHERE id = $1; END`,
		`CREATE FUNCTION opaque(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'`,
		`CREATE FUNCTION steady(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'`,
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	loads := []struct{ name, load, says string }{
		{"now", "SELECT to_json(n) FROM things WHERE id = $1 AND at < now()", "now()"},
		{"clock", "SELECT to_json(clock_timestamp()) WHERE $1 <> ''", "clock_timestamp()"},
		{"word", "SELECT to_json(CURRENT_TIMESTAMP(3)) WHERE $1 <> ''", "CURRENT_TIMESTAMP"},
		{"today", "SELECT to_json(current_date) WHERE $1 <> ''", "CURRENT_TIMESTAMP"},
		{"age", "SELECT to_json(age(at)) FROM things WHERE id = $1", "age()"},
		{"between", "SELECT to_json(age(at, timestamptz '2026-01-01')) FROM things WHERE id = $1", ""},
		{"dice", "SELECT to_json(random()) WHERE $1 <> ''", "random()"},
		{"opaque", "SELECT to_json(opaque($1))", "public.opaque()"},
		{"steady", "SELECT to_json(steady($1))", ""},
		{"through", "SELECT to_json(n) FROM recent WHERE id = $1", "now()"},
		{"list", "SELECT json_agg(n) FROM things WHERE id = $1", "json_agg()"},
		{"array", "SELECT to_json(array_agg(n)) FROM things WHERE id = $1", "array_agg()"},
		{"half", "SELECT json_build_array(json_agg(n ORDER BY n), jsonb_agg(at)) FROM things WHERE id = $1", "jsonb_agg()"},
		{"body", "SELECT parsed($1)", "json_agg()"},
		{"sorted", "SELECT json_agg(n ORDER BY n) FROM things WHERE id = $1", ""},
		{"distinct", "SELECT to_json(array_agg(DISTINCT n)) FROM things WHERE id = $1", ""},
		{"before", "SELECT json_agg(t) FROM (SELECT n FROM things WHERE id = $1 ORDER BY n) t", ""},
		{"object", "SELECT json_object_agg(n, at) FROM things WHERE id = $1", ""},
		{"words", "SELECT to_json('now() json_agg(x)'::text) /* random() */ FROM things WHERE id = $1 -- clock_timestamp()", ""},
		{"broken", "SELECT to_json(nothing) FROM nowhere WHERE id = $1", ""},
	}
	var file strings.Builder
	file.WriteString("views:\n")
	for _, l := range loads {
		file.WriteString("  " + l.name + ":\n    key: [id]\n    load: |\n      " + l.load + "\n")
	}
	views, err := view.Parse("views.yaml", []byte(file.String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := Unsteady(t.Context(), conn, views)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range loads {
		var why []string
		for _, f := range found {
			if f.View == l.name {
				why = append(why, f.Why)
			}
		}
		if l.says == "" && why != nil || l.says != "" && (len(why) != 1 || !strings.Contains(why[0], l.says)) {
			t.Errorf("%s: %q, want %q", l.name, why, l.says)
		}
	}
}

// The views that come with the program are steady.
func TestOwnLoadsAreSteady(t *testing.T) {
	b := newBed(t)
	found, err := Unsteady(t.Context(), b.conn, mythic(t))
	if err != nil || found != nil {
		t.Errorf("%v, %v", found, err)
	}
}
