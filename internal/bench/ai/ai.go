package ai

import (
	"context"
	"errors"
	"io"
	"time"

	"mythiccache/internal/bench/gauge"
)

func figures() []gauge.Figure[*bed] {
	return []gauge.Figure[*bed]{
		{Name: "hit", Takes: 20 * time.Second, Measure: hit},
		{Name: "token", Takes: 20 * time.Second, Measure: token},
		{Name: "budget", Takes: 15 * time.Second, Measure: budget},
		{Name: "saturated", Takes: time.Minute, Measure: saturated},
	}
}

// Options says what is measured, and with what.
type Options struct {
	Dir     string    // where servers may keep their data, on a disk like a real one's
	Program string    // what is measured
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
