package store

import (
	"context"
	"errors"
	"fmt"

	"mythiccache/internal/bench/gauge"
)

const (
	latencyRounds = 3
	mostLater     = 1.5 // times
)

// delays are the 50th and 99th percentiles of rounds, in ms.
type delays struct{ p50, p99 []float64 }

func (d *delays) add(late []float64) {
	d.p50, d.p99 = append(d.p50, gauge.Median(late)), append(d.p99, gauge.Quantile(late, .99))
}

func (d *delays) String() string {
	return fmt.Sprintf("p50 %s ms, p99 %s ms", gauge.Spread("%.2f", d.p50), gauge.Spread("%.2f", d.p99))
}

// latency measures how long after a commit returned its entry can be read from the
// stream, and how long after it the key's fence is set, for the same writes.
func latency(ctx context.Context, b *bed) (lines []gauge.Line, err error) {
	w, err := newWhole(ctx, b.o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close(ctx)) }()
	if _, err := w.follow(ctx, 200, b.seconds(3)); err != nil { // until all of it is warm
		return nil, err
	}
	for _, rate := range []int{200, 1000} {
		line, err := w.latencyAt(ctx, rate, b.seconds(map[int]int{200: 10, 1000: mostWrites / 1000}[rate]))
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// seconds are how long a round of so many is.
func (b *bed) seconds(n int) int {
	if b.o.Once {
		return 1
	}
	return n
}

func (w *whole) latencyAt(ctx context.Context, rate, seconds int) (gauge.Line, error) {
	var entry, fence, between delays
	for range latencyRounds {
		if err := w.neaten(ctx); err != nil {
			return gauge.Line{}, err
		}
		came, err := w.follow(ctx, rate, seconds)
		if err != nil {
			return gauge.Line{}, err
		}
		entry.add(came.entry)
		fence.add(came.fence)
		between.add(came.between)
	}
	ratio := gauge.Ratio(fence.p99, entry.p99)
	return gauge.Line{
		Figure: fmt.Sprintf("commit → invalidated at %d/s, p99", rate), Reach: fmt.Sprintf("≤ %g × commit → entry", mostLater),
		Measured: gauge.Spread("%.2f", fence.p99) + " ms", Baseline: gauge.Spread("%.2f", entry.p99) + " ms",
		Ratio: fmt.Sprintf("%.2f", ratio), Reached: ratio <= mostLater,
		Notes: []string{
			fmt.Sprintf("the program as relay and workers; %d rounds of %d writes, each of another key", latencyRounds, rate*seconds),
			"commit → entry        " + entry.String(), "commit → invalidated  " + fence.String(), "entry → invalidated   " + between.String(),
		},
	}, nil
}
