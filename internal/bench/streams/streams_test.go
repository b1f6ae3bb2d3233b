package streams

import (
	"strings"
	"testing"

	"mythiccache/internal/bench/gauge"
)

// Each figure can be measured, on a hundredth of its events: what they are is not
// for a test to say. Memory needs the program, and is left out.
func TestFiguresCanBeMeasured(t *testing.T) {
	for _, f := range figures() {
		if f.Name == "memory" {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			var out, log strings.Builder
			if err := Run(t.Context(), gauge.Options{Dir: t.TempDir(), Names: []string{f.Name}, Once: true, Out: &out, Log: &log}); err != nil {
				t.Fatal(err)
			}
			if table := out.String(); strings.Count(table, "\n") < 2 || strings.Contains(table, "NaN") {
				t.Errorf("the table is\n%s", table)
			}
		})
	}
}
