package ai

import (
	"context"
	"time"

	"mythiccache/internal/bench/gauge"
)

func figures() []gauge.Figure[*bed] {
	return []gauge.Figure[*bed]{
		{Name: "hit", Takes: 20 * time.Second, Measure: hit},
		{Name: "token", Takes: 20 * time.Second, Measure: token},
		{Name: "budget", Takes: 15 * time.Second, Measure: budget},
		{Name: "saturated", Takes: 4 * time.Minute, Measure: saturated},
	}
}

// Run measures the figures one after the other and prints one table.
func Run(ctx context.Context, o gauge.Options) error { return gauge.Run(ctx, o, figures(), newBed) }
