package capture

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"mythiccache/internal/bench/gauge"
)

// figure is one thing that is measured: the lines that it puts into the table.
type figure struct {
	name    string
	takes   time.Duration // about
	measure func(context.Context, *bed) ([]line, error)
}

func figures() []figure {
	return []figure{
		{"commits", 100 * time.Second, commits},
		{"latency", 105 * time.Second, latency},
		{"latency-long", 65 * time.Second, latencyLong},
		{"update", 35 * time.Second, update},
		{"drain", 110 * time.Second, drain},
		{"xmin", 80 * time.Second, xmin},
		{"idle", 30 * time.Second, idle},
	}
}

// Options says what is measured, and with what.
type Options struct {
	Dir     string    // where servers may keep their data, on a disk like a real one's
	Program string    // the program to measure
	Names   []string  // of figures; all where there are none
	Out     io.Writer // gets the table
	Log     io.Writer // gets a sentence now and then, since it takes minutes
}

// Run measures the figures one after the other and prints one table.
func Run(ctx context.Context, o Options) error {
	chosen, err := choose(o.Names)
	if err != nil {
		return err
	}
	b, err := newBed(ctx, o)
	if err != nil {
		return err
	}
	defer b.close(ctx)
	var table table
	for _, f := range chosen {
		b.sayf("%s, some %s; the machine's load is %s", f.name, f.takes, gauge.Load())
		lines, err := f.measure(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		table = append(table, lines...)
	}
	return table.print(o.Out)
}

func choose(names []string) ([]figure, error) {
	all := figures()
	if len(names) == 0 {
		return all, nil
	}
	var chosen []figure
	for _, name := range names {
		i := slices.IndexFunc(all, func(f figure) bool { return f.name == name })
		if i < 0 {
			known := make([]string, len(all))
			for i, f := range all {
				known[i] = f.name
			}
			return nil, fmt.Errorf("there is no figure %q; there are %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
