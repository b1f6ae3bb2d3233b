package streams

import (
	"context"
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
func Run(ctx context.Context, o gauge.Options) error {
	// As the program does, for all contestants alike.
	defer debug.SetGCPercent(debug.SetGCPercent(200))
	return gauge.Run(ctx, o, figures(), newBed)
}
