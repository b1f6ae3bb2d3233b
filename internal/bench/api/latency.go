package api

import (
	"context"
	"fmt"
	"time"

	"mythiccache/internal/bench/gauge"
)

const (
	peakRounds    = 3
	latencyRounds = 5
	latencyPeriod = 4 * time.Second
)

// latency measures how long requests take at half of the rate that the slower of two
// has at its peak, the same rate for both.
func latency(ctx context.Context, b *bed) ([]gauge.Line, error) {
	f, err := b.field(ctx, oursNear, oursDistant, ofWebdis, fromMemory)
	if err != nil {
		return nil, err
	}
	if f.named(ofWebdis) == nil {
		return []gauge.Line{{Figure: "p99 at half of the peak rate", Reach: "≤ " + ofWebdis, Measured: "–", Notes: f.missing}}, nil
	}
	peak, err := race(ctx, f.all, peakRounds, 2*time.Second)
	if err != nil {
		return nil, err
	}
	rate := min(gauge.Median(peak.rates[oursNear]), gauge.Median(peak.rates[oursDistant]), gauge.Median(peak.rates[ofWebdis])) / 2
	found := map[string][]delays{}
	for range latencyRounds {
		for _, c := range f.all {
			d, err := c.steadily(ctx, rate, latencyPeriod)
			if err != nil {
				return nil, err
			}
			found[c.name] = append(found[c.name], d)
		}
	}
	p99 := func(name string) []float64 {
		return of(found[name], func(d delays) float64 { return d.P99 })
	}
	line := func(figure, ours string) gauge.Line {
		mine, theirs := p99(ours), p99(ofWebdis)
		return gauge.Line{
			Figure: figure, Reach: "≤ " + ofWebdis, Measured: gauge.Spread("%.2f", mine) + " ms", Baseline: gauge.Spread("%.2f", theirs) + " ms",
			Ratio: fmt.Sprintf("%.2f", gauge.Ratio(mine, theirs)), Reached: gauge.Median(mine) <= gauge.Median(theirs),
		}
	}
	lines := []gauge.Line{
		line(fmt.Sprintf("p99 at %.0f requests/s, near cache on", rate), oursNear),
		line(fmt.Sprintf("p99 at %.0f requests/s, near cache off", rate), oursDistant),
	}
	for _, c := range f.all {
		d := found[c.name]
		lines[0].Notes = append(lines[0].Notes, fmt.Sprintf("%s: p50 %.2f, p90 %.2f, p99 %.2f, at most %.1f ms; peak %s/s", c.name,
			gauge.Median(of(d, func(d delays) float64 { return d.P50 })), gauge.Median(of(d, func(d delays) float64 { return d.P90 })),
			gauge.Median(p99(c.name)), gauge.Median(of(d, func(d delays) float64 { return d.Max })), gauge.Spread("%.0f", peak.rates[c.name])))
	}
	lines[0].Notes = append(lines[0].Notes, "the rate is half of the slowest's peak; a request counts from when it was due; the machine's load at the end: "+gauge.Load())
	return lines, nil
}

// of is one of the figures of each round.
func of(all []delays, one func(delays) float64) []float64 {
	figures := make([]float64, len(all))
	for i, d := range all {
		figures[i] = one(d)
	}
	return figures
}
