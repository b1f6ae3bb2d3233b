package api

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"mythiccache/internal/bench/gauge"
)

const mostAllocations = 25

// allocations measures what a hit allocates, net/http's and go-redis's part included,
// by the runtime's own count.
func allocations(ctx context.Context, b *bed) ([]gauge.Line, error) {
	f, err := b.field(ctx, oursNear, oursDistant, ours304)
	if err != nil {
		return nil, err
	}
	var lines []gauge.Line
	for _, c := range f.all {
		before, err := allocated(ctx, c)
		if err != nil {
			return nil, err
		}
		r, err := c.wrk(ctx, time.Second)
		if err != nil {
			return nil, err
		}
		after, err := allocated(ctx, c)
		if err != nil {
			return nil, err
		}
		each := (after - before) / float64(r.n)
		lines = append(lines, gauge.Line{
			Figure: "allocations, " + c.name, Reach: fmt.Sprintf("≤ %d", mostAllocations), Measured: fmt.Sprintf("%.1f", each), Reached: each <= mostAllocations,
		})
	}
	return lines, nil
}

// allocated is how many objects the process of a contestant has allocated so far.
func allocated(ctx context.Context, c *contestant) (float64, error) {
	got, err := get(ctx, c.address, "/metrics", nil)
	if err != nil {
		return 0, fmt.Errorf("ask for metrics: %w", err)
	}
	_, rest, found := bytes.Cut(got.body, []byte("\ngo_memstats_mallocs_total "))
	digits, _, _ := bytes.Cut(rest, []byte("\n"))
	if !found {
		return 0, fmt.Errorf("the metrics of %s do not tell what it has allocated", c.name)
	}
	return strconv.ParseFloat(string(digits), 64)
}
