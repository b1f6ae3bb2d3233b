package store

import (
	"strings"
	"testing"
)

// Each figure can be measured, over a hundredth of its keys: what they are is not
// for a test to say.
func TestFiguresCanBeMeasured(t *testing.T) {
	for _, f := range figures() {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			var out, log strings.Builder
			if err := Run(t.Context(), Options{Dir: t.TempDir(), Names: []string{f.Name}, Once: true, Out: &out, Log: &log}); err != nil {
				t.Fatal(err)
			}
			if table := out.String(); strings.Count(table, "\n") < 2 || strings.Contains(table, "NaN") {
				t.Errorf("the table is\n%s", table)
			}
		})
	}
}
