package store

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"time"

	"mythiccache/internal/bench/gauge"
)

func figures() []gauge.Figure[*bed] {
	return []gauge.Figure[*bed]{
		{Name: "put", Takes: 10 * time.Second, Measure: put},
		{Name: "invalidate", Takes: 10 * time.Second, Measure: invalidate},
		{Name: "memory", Takes: 5 * time.Second, Measure: memory},
		{Name: "latency", Takes: time.Minute, Measure: latency},
	}
}

// Options says what is measured, and with what.
type Options struct {
	Dir     string    // where servers may keep their data, on a disk like a real one's
	Program string    // the program whose latency is measured
	Names   []string  // of figures; all where there are none
	Out     io.Writer // gets the table
	Log     io.Writer // gets a sentence now and then
	Once    bool      // each contestant once, over few keys: to try that it works
}

// Run measures the figures one after the other and prints one table.
func Run(ctx context.Context, o Options) error {
	chosen, err := gauge.Choose(figures(), o.Names)
	if err != nil {
		return err
	}
	// As the program does, for all contestants alike.
	defer debug.SetGCPercent(debug.SetGCPercent(200))
	b, err := newBed(ctx, o)
	if err != nil {
		return err
	}
	return errors.Join(gauge.Measure(ctx, chosen, b, o.Out, o.Log), b.close())
}
