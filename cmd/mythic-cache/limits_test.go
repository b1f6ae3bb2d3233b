package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The default of RATE_LIMITS names a path of Mythic's. With views that have no such
// path it must not stop the program, as a rule for nothing that somebody wrote does.
func TestTheDefaultLimitsFitTheViews(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "views.yaml")
	const things = "views:\n  things:\n    key: [id]\n    on_change: invalidate\n    ttl: 1m\n" +
		"    load: SELECT to_json(t) FROM things t WHERE t.id::text = $1\n    tables: {things: SELECT id::text FROM changed}\n    http: {path: '/things/{id}', key: id}\n"
	if err := os.WriteFile(file, []byte(things), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, environ := range map[string][]string{
		"default=100/1m,/status=600/1m": nil,
		"default=100/1m":                {"VIEWS_FILE=" + file},
		"/status=1/1m":                  {"VIEWS_FILE=" + file, "RATE_LIMITS=/status=1/1m"},
	} {
		c, err := (&program{environ: environ}).config()
		if err != nil {
			t.Fatal(err)
		}
		if c.RateLimits != want {
			t.Errorf("%q: %s, want %s", environ, c.RateLimits, want)
		}
	}
}
