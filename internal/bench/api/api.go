package api

import (
	"context"
	"errors"
	"io"
	"time"

	"mythiccache/internal/bench/gauge"
)

func figures() []gauge.Figure[*bed] {
	return []gauge.Figure[*bed]{
		{Name: "hits", Takes: 4 * time.Minute, Measure: hits},
		{Name: "latency", Takes: 90 * time.Second, Measure: latency},
		{Name: "allocations", Takes: 5 * time.Second, Measure: allocations},
		{Name: "staleness", Takes: 25 * time.Second, Measure: staleness},
		{Name: "outage", Takes: 150 * time.Second, Measure: outages},
	}
}

// Options says what is measured, and with what.
type Options struct {
	Dir     string    // where servers may keep their data and logs
	Program string    // what is measured
	Others  string    // where the packages of the others are installed
	Names   []string  // of figures; all where there are none
	Out     io.Writer // gets the table
	Log     io.Writer // gets a sentence now and then
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
	return errors.Join(gauge.Measure(ctx, chosen, b, o.Out, o.Log), b.close(ctx))
}
