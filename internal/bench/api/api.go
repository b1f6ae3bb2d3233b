package api

import (
	"context"
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

// Run measures the figures one after the other and prints one table.
func Run(ctx context.Context, o gauge.Options) error { return gauge.Run(ctx, o, figures(), newBed) }
