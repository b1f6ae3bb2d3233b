package capture

import (
	"context"
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

// Run measures the figures one after the other and prints one table.
func Run(ctx context.Context, o gauge.Options) error { return gauge.Run(ctx, o, figures(), newBed) }
