package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mythiccache/internal/bench/gauge"
)

// What is measured, and what it is to reach.
const (
	watchers   = 10_000
	perRun     = 10
	perUser    = 10
	rate       = 100 // changes a second
	seconds    = 20
	mostLate   = 100.0 // ms
	mostMemory = 30.0  // kB
)

func figures() []gauge.Figure[*bed] {
	return []gauge.Figure[*bed]{{Name: "push", Takes: time.Minute, Measure: push}}
}

// Run measures the figures one after the other and prints one table.
func Run(ctx context.Context, o gauge.Options) error { return gauge.Run(ctx, o, figures(), newBed) }

// push has all watch, and then changes what they watch.
func push(ctx context.Context, b *bed) ([]gauge.Line, error) {
	before, _, err := gauge.Memory(b.api.PID())
	if err != nil {
		return nil, err
	}
	c := newCrowd(rate * seconds)
	defer c.leave()
	begun := time.Now()
	if err := c.join(ctx, b); err != nil {
		return nil, err
	}
	opened := time.Since(begun)
	idle, _, err := gauge.Memory(b.api.PID())
	if err != nil {
		return nil, err
	}
	usedBefore, err := gauge.CPU(b.api.PID())
	if err != nil {
		return nil, err
	}
	if err := b.change(ctx, c); err != nil {
		return nil, err
	}
	missing := c.await(ctx, 10*time.Second)
	used, err := gauge.CPU(b.api.PID())
	if err != nil {
		return nil, err
	}
	after, highest, err := gauge.Memory(b.api.PID())
	if err != nil {
		return nil, err
	}
	late := c.late()
	if len(late) == 0 {
		return nil, errors.New("no change reached anybody")
	}
	each := func(resident int64) float64 { return float64(resident-before) / watchers / 1000 }
	p99 := gauge.Quantile(late, .99)
	return []gauge.Line{
		{
			Figure: fmt.Sprintf("commit → event read, %d watchers, %d changes/s, p99", watchers, rate), Reach: fmt.Sprintf("≤ %g ms", mostLate),
			Measured: fmt.Sprintf("%.1f ms", p99), Reached: p99 <= mostLate && missing == 0,
			Notes: []string{
				fmt.Sprintf("p50 %.1f ms, p90 %.1f ms, at most %.1f ms; %d events, %d missing", gauge.Median(late), gauge.Quantile(late, .9), gauge.Quantile(late, 1), len(late), missing),
				fmt.Sprintf("all were watching after %.1f s; the API used %.0f %% of a processor during the changes", opened.Seconds(), 100*(used-usedBefore).Seconds()/seconds),
			},
		},
		{
			Figure: "memory a watcher", Reach: fmt.Sprintf("≤ %g kB", mostMemory),
			Measured: fmt.Sprintf("%.1f kB", each(after)), Reached: each(after) <= mostMemory,
			Notes: []string{fmt.Sprintf("%.1f kB when all had come, %.1f kB at the highest; %.1f MB resident before", each(idle), each(highest), float64(before)/1e6)},
		},
	}, nil
}
