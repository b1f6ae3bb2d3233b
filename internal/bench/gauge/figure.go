package gauge

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Figure is one thing that is measured on a bed B: the lines that it puts into the
// table.
type Figure[B any] struct {
	Name    string
	Takes   time.Duration // about
	Measure func(context.Context, B) ([]Line, error)
}

// choose returns the figures of those names, all where there are none.
func choose[B any](all []Figure[B], names []string) ([]Figure[B], error) {
	if len(names) == 0 {
		return all, nil
	}
	var chosen []Figure[B]
	for _, name := range names {
		i := slices.IndexFunc(all, func(f Figure[B]) bool { return f.Name == name })
		if i < 0 {
			known := make([]string, len(all))
			for i, f := range all {
				known[i] = f.Name
			}
			return nil, fmt.Errorf("there is no figure %q; there are %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// measure measures the figures one after the other and prints one table to out. It
// says to log what comes next, since it takes minutes.
func measure[B any](ctx context.Context, figures []Figure[B], bed B, out, log io.Writer) error {
	var table Table
	for _, f := range figures {
		fmt.Fprintf(log, "%s, some %s; the machine's load is %s\n", f.Name, f.Takes, Load())
		lines, err := f.Measure(ctx, bed)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		table = append(table, lines...)
	}
	return table.Print(out)
}
