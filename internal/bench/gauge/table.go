package gauge

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
)

// Line is one figure beside its baseline. Notes, which say where a figure comes
// from, stand below the table.
type Line struct {
	Figure, Reach, Measured, Baseline, Ratio string
	Reached                                  bool
	Notes                                    []string
}

// Table is what a benchmark prints.
type Table []Line

// Print writes the table in columns, and the notes below.
func (t Table) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tto reach\tmeasured (spread)\tbaseline (spread)\tratio\treached")
	for _, l := range t {
		reached := "missed"
		if l.Reached {
			reached = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Figure, l.Reach, l.Measured, orDash(l.Baseline), orDash(l.Ratio), reached)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	for _, l := range t {
		for i, note := range l.Notes {
			if i == 0 {
				fmt.Fprintf(out, "\n%s\n", l.Figure)
			}
			fmt.Fprintf(out, "  %s\n", note)
		}
	}
	return nil
}

func orDash(text string) string { return cmp.Or(text, "–") }

// Spread tells a median with the least and the greatest, each in a format.
func Spread(format string, all []float64) string {
	return fmt.Sprintf(format+" ("+format+"–"+format+")", Median(all), Quantile(all, 0), Quantile(all, 1))
}

// Ratio is that of the medians.
func Ratio(of, to []float64) float64 { return Median(of) / Median(to) }
