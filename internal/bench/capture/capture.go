package capture

import (
	"context"
	"io"
	"time"

	"mythiccache/internal/bench/gauge"
)

func figures() []gauge.Figure[*bed] {
	return []gauge.Figure[*bed]{
		{Name: "commits", Takes: 100 * time.Second, Measure: commits},
		{Name: "latency", Takes: 105 * time.Second, Measure: latency},
		{Name: "latency-long", Takes: 65 * time.Second, Measure: latencyLong},
		{Name: "update", Takes: 35 * time.Second, Measure: update},
		{Name: "drain", Takes: 110 * time.Second, Measure: drain},
		{Name: "xmin", Takes: 80 * time.Second, Measure: xmin},
		{Name: "idle", Takes: 30 * time.Second, Measure: idle},
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
	chosen, err := gauge.Choose(figures(), o.Names)
	if err != nil {
		return err
	}
	b, err := newBed(ctx, o)
	if err != nil {
		return err
	}
	defer b.close(ctx)
	return gauge.Measure(ctx, chosen, b, o.Out, o.Log)
}
