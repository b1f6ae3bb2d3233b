package streams

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"mythiccache/internal/bench/gauge"
)

// contestant is one way of doing what a figure measures.
type contestant struct {
	name string
	of   int // how many events it gets: so many that it takes a second or more
	// do begins, calls done after each part of its work, and returns once ctx has
	// ended and all that it started has.
	do func(ctx context.Context, done func(events int)) error
}

// patience bounds one run of one contestant.
const patience = 2 * time.Minute

// repetitions of each contestant, in turn.
func (b *bed) repetitions() int {
	if b.o.Once {
		return 1
	}
	return 5
}

// scaled is how many events stand for n.
func (b *bed) scaled(n int) int {
	if b.o.Once {
		return max(n/100, published)
	}
	return n
}

// run returns the events per second of one run.
func (c contestant) run(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var left atomic.Int64
	left.Store(int64(c.of))
	over := make(chan struct{})
	ended := make(chan error, 1)
	begun := time.Now()
	go func() {
		ended <- c.do(ctx, func(n int) {
			if now := left.Add(-int64(n)); now <= 0 && now+int64(n) > 0 {
				close(over)
			}
		})
	}()
	var took time.Duration
	select {
	case <-over:
		took = time.Since(begun)
	case err := <-ended:
		return 0, fmt.Errorf("%s ended with %d of %d events left: %w", c.name, left.Load(), c.of, err)
	case <-ctx.Done():
		return 0, fmt.Errorf("%s: %d of %d events are left: %w", c.name, left.Load(), c.of, context.Cause(ctx))
	}
	cancel()
	if err := <-ended; err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	return float64(c.of) / took.Seconds(), nil
}

// rates are the events per second of each repetition, by contestant.
type rates map[string][]float64

// race runs contestants in turn; before each of them, where it is there, prepare.
func (b *bed) race(ctx context.Context, prepare func(context.Context) error, contestants ...contestant) (rates, error) {
	all := rates{}
	for range b.repetitions() {
		for _, c := range contestants {
			if prepare != nil {
				if err := prepare(ctx); err != nil {
					return nil, err
				}
			}
			c.of = b.scaled(c.of)
			rate, err := c.run(ctx)
			if err != nil {
				return nil, err
			}
			all[c.name] = append(all[c.name], rate)
		}
	}
	return all, nil
}

// line is ours beside another's, which is to be exceeded so many times.
func (r rates) line(figure, other string, times float64, notes ...string) gauge.Line {
	ratio := gauge.Ratio(r["ours"], r[other])
	return gauge.Line{
		Figure: figure, Reach: fmt.Sprintf("≥ %g × %s", times, other), Measured: gauge.Spread("%.0f", r["ours"]) + "/s",
		Baseline: other + " " + gauge.Spread("%.0f", r[other]) + "/s", Ratio: fmt.Sprintf("%.2f", ratio), Reached: ratio >= times, Notes: notes,
	}
}

// note tells what one contestant reached that no figure is compared with.
func (r rates) note(name, what string) string {
	return fmt.Sprintf("%s: %s/s, of which ours is %.2f", what, gauge.Spread("%.0f", r[name]), gauge.Ratio(r["ours"], r[name]))
}
