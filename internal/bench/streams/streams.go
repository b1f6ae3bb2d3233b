package streams

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"mythiccache/internal/bench/gauge"
)

func figures() []gauge.Figure[*bed] {
	return []gauge.Figure[*bed]{
		{Name: "consume", Takes: 50 * time.Second, Measure: consume},
		{Name: "invalidate", Takes: 45 * time.Second, Measure: invalidate},
		{Name: "publish", Takes: 20 * time.Second, Measure: publish},
		{Name: "far", Takes: 60 * time.Second, Measure: far},
		{Name: "one-key", Takes: 5 * time.Second, Measure: oneKey},
		{Name: "memory", Takes: 30 * time.Second, Measure: memory},
	}
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
