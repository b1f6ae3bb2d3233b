package capture

import (
	"context"
	"fmt"

	"mythiccache/internal/bench/gauge"
	"mythiccache/producers/event"
)

const (
	drainRows   = 1_000_000
	drainLoop   = 300_000 // of them, those that the baseline sends
	drainRounds = 3
)

// drain measures how fast a million waiting rows get into the streams.
func drain(ctx context.Context, b *bed) ([]gauge.Line, error) {
	if err := b.run(ctx, b.ours); err != nil { // it leaves a position
		return nil, err
	}
	if err := b.ours.settle(ctx); err != nil {
		return nil, err
	}
	var lines []gauge.Line
	for _, w := range backlogs() {
		of, err := b.drainOf(ctx, w)
		if err != nil {
			return nil, err
		}
		lines = append(lines, of...)
	}
	return lines, nil
}

func (b *bed) drainOf(ctx context.Context, w backlog) ([]gauge.Line, error) {
	if err := b.run(ctx); err != nil {
		return nil, err
	}
	b.sayf("leaving %d %s", drainRows, w.name)
	position, err := b.position(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.ours.leave(ctx, w, drainRows); err != nil {
		return nil, err
	}
	held := make([]event.Event, drainLoop)
	for i := range held {
		held[i] = w.row(i + 1)
	}
	var ours, steady, loop, rss []float64
	for range drainRounds {
		d, err := b.ours.drainOnce(ctx, w.topic, drainRows)
		if err != nil {
			return nil, err
		}
		ours, steady, rss = append(ours, d.rate(drainRows)), append(steady, d.steady(drainRows)), append(rss, float64(d.rss)/(1<<20))
		if err := b.client.XTrimMaxLen(ctx, b.ours.keys.Topic(w.topic), 0).Err(); err != nil {
			return nil, fmt.Errorf("trim the stream: %w", err)
		}
		l, err := b.loop(ctx, held)
		if err != nil {
			return nil, err
		}
		loop = append(loop, l)
		// The same rows wait again.
		if err := b.client.HSet(ctx, b.ours.keys.Position(), "position", position).Err(); err != nil {
			return nil, fmt.Errorf("set the position back: %w", err)
		}
	}
	if err := b.ours.exec(ctx, b.ours.empty); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("drain of %d waiting %s", drainRows, w.name)
	return []gauge.Line{
		{
			Figure: name, Reach: "≥ 60000 rows/s or ≥ 0.5 of a loop", Measured: gauge.Spread("%.0f", ours), Baseline: "loop " + gauge.Spread("%.0f", loop),
			Ratio: fmt.Sprintf("%.2f", gauge.Ratio(ours, loop)), Reached: gauge.Median(ours) >= 60_000 || gauge.Ratio(ours, loop) >= .5,
			Notes: []string{"from the process's start to the last entry; from the first entry to the last " + gauge.Spread("%.0f", steady) + " rows/s"},
		},
		{Figure: name, Reach: "RSS < 100 MB", Measured: gauge.Spread("%.0f MB", rss), Reached: gauge.Quantile(rss, 1) < 100},
	}, nil
}

// position is the relay's, as it stands in Redis.
func (b *bed) position(ctx context.Context) (string, error) {
	text, err := b.client.HGet(ctx, b.ours.keys.Position(), "position").Result()
	if err != nil {
		return "", fmt.Errorf("read the relay's position: %w", err)
	}
	return text, nil
}
