package capture

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"

	"mythiccache/internal/bench/gauge"
)

// line is one figure beside its baseline. Notes, which say where a figure comes
// from, stand below the table.
type line struct {
	figure, reach, measured, baseline, ratio string
	reached                                  bool
	notes                                    []string
}

type table []line

func (t table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tto reach\tmeasured (spread)\tbaseline (spread)\tratio\treached")
	for _, l := range t {
		reached := "missed"
		if l.reached {
			reached = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.figure, l.reach, l.measured, orDash(l.baseline), orDash(l.ratio), reached)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	for _, l := range t {
		for i, note := range l.notes {
			if i == 0 {
				fmt.Fprintf(out, "\n%s\n", l.figure)
			}
			fmt.Fprintf(out, "  %s\n", note)
		}
	}
	return nil
}

func orDash(text string) string { return cmp.Or(text, "–") }

// spread tells a median with the least and the greatest, each in a format.
func spread(format string, all []float64) string {
	return fmt.Sprintf(format+" ("+format+"–"+format+")", gauge.Median(all), gauge.Quantile(all, 0), gauge.Quantile(all, 1))
}

func ratio(of, to []float64) float64 { return gauge.Median(of) / gauge.Median(to) }
