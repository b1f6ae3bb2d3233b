package store

import (
	"context"
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

// Run measures the figures one after the other and prints one table.
func Run(ctx context.Context, o gauge.Options) error {
	// As the program does, for all contestants alike.
	defer debug.SetGCPercent(debug.SetGCPercent(200))
	return gauge.Run(ctx, o, figures(), newBed)
}
