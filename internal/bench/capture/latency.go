package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mythiccache/internal/bench/gauge"
)

const (
	latencyPeriod = 10 * time.Second
	fastPeriod    = 6 * time.Second // at a thousand writes a second
	latencyRounds = 3
)

// delays are quantiles of rounds, in ms.
type delays struct {
	p50, p99, commit []float64
	lost, of         int
	self             []float64 // processor time of this program, in % of a core
}

func (d *delays) add(f followed) {
	d.p50, d.p99 = append(d.p50, gauge.Median(f.late)), append(d.p99, gauge.Quantile(f.late, .99))
	d.commit = append(d.commit, gauge.Median(f.commit))
	d.self = append(d.self, f.self)
	d.lost, d.of = d.lost+f.lost, d.of+f.lost+len(f.late)
}

func (d *delays) String() string {
	return fmt.Sprintf("p50 %s, p99 %s, the commit itself %s at the median; %d of %d writes never came; writers and reader used %s of a core",
		gauge.Spread("%.2f", d.p50), gauge.Spread("%.2f", d.p99), gauge.Spread("%.2f ms", d.commit), d.lost, d.of, gauge.Spread("%.0f %%", d.self))
}

// latency measures how long after a commit returned its entry can be read.
func latency(ctx context.Context, b *bed) ([]gauge.Line, error) {
	if err := b.latencyBed(ctx, b.ours, b.bare); err != nil {
		return nil, err
	}
	var lines []gauge.Line
	for _, rate := range []int{200, 1000} {
		ours, bare, err := b.latencyAt(ctx, rate)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("commit → entry at %d/s", rate)
		row := func(quantile, reach string, most float64, ours, bare []float64) gauge.Line {
			return gauge.Line{
				Figure: name + ", " + quantile, Reach: reach, Measured: gauge.Spread("%.2f", ours) + " ms", Baseline: "bare " + gauge.Spread("%.2f", bare) + " ms",
				Ratio: fmt.Sprintf("%.2f", gauge.Ratio(ours, bare)), Reached: gauge.Ratio(ours, bare) <= most,
			}
		}
		if rate == 200 {
			lines = append(lines, row("p50", "≤ bare", 1, ours.p50, bare.p50), row("p99", "≤ bare", 1, ours.p99, bare.p99))
		} else {
			lines = append(lines, row("p99", "≤ 0.8 of bare", .8, ours.p99, bare.p99))
		}
		last := &lines[len(lines)-1]
		last.Notes = []string{"ours  " + ours.String(), "bare  " + bare.String()}
	}
	return lines, nil
}

// latencyBed has enough users that no key is written twice within seconds.
func (b *bed) latencyBed(ctx context.Context, these ...*contestant) error {
	if err := b.fill(ctx, rows{users: commitUsers, books: commitRows, sessions: commitRows}); err != nil {
		return err
	}
	if err := b.run(ctx, these...); err != nil {
		return err
	}
	for _, c := range these {
		if err := c.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// latencyAt lets ours and the baseline write in turn.
func (b *bed) latencyAt(ctx context.Context, rate int) (ours, bare *delays, err error) {
	ours, bare = &delays{}, &delays{}
	period := latencyPeriod
	if rate > 200 {
		period = fastPeriod
	}
	for round := range latencyRounds {
		turn := []*contestant{b.ours, b.bare}
		if round%2 == 1 {
			slices.Reverse(turn)
		}
		for _, c := range turn {
			f, err := b.followNeatly(ctx, c, rate, period)
			if err != nil {
				return nil, nil, err
			}
			if c == b.ours {
				ours.add(f)
			} else {
				bare.add(f)
			}
		}
	}
	return ours, bare, b.ours.mayLose(ours, 0)
}

// followNeatly follows writes for a round, from neat tables.
func (b *bed) followNeatly(ctx context.Context, c *contestant, rate int, period time.Duration) (followed, error) {
	if err := c.exec(ctx, "VACUUM books", "CHECKPOINT"); err != nil {
		return followed{}, err
	}
	return c.follow(ctx, commitUsers, rate, period)
}

func (c *contestant) mayLose(d *delays, most int) error {
	if d.lost > most {
		return fmt.Errorf("%s lost %d of %d writes", c.name, d.lost, d.of)
	}
	return nil
}

// latencyLong measures the same beside a transaction of somebody else's that
// stays open.
func latencyLong(ctx context.Context, b *bed) (lines []gauge.Line, err error) {
	if err := b.latencyBed(ctx, b.ours); err != nil {
		return nil, err
	}
	other, err := connect(ctx, b.ours.url)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, other.Close(context.WithoutCancel(ctx))) }()
	if _, err := other.Exec(ctx, "CREATE TABLE IF NOT EXISTS unrelated (n integer)"); err != nil {
		return nil, fmt.Errorf("make an unrelated table: %w", err)
	}
	with, without := &delays{}, &delays{}
	for round := range latencyRounds {
		for turn := range 2 {
			long := (round+turn)%2 == 1
			into := without
			if long {
				into = with
				if _, err := other.Exec(ctx, "BEGIN; INSERT INTO unrelated VALUES (1)"); err != nil {
					return nil, fmt.Errorf("begin a long transaction: %w", err)
				}
			}
			f, err := b.followNeatly(ctx, b.ours, 200, latencyPeriod)
			if err != nil {
				return nil, err
			}
			into.add(f)
			if long {
				if _, err := other.Exec(ctx, "COMMIT"); err != nil {
					return nil, fmt.Errorf("end a long transaction: %w", err)
				}
			}
		}
	}
	if err := errors.Join(b.ours.mayLose(with, 0), b.ours.mayLose(without, 0)); err != nil {
		return nil, err
	}
	return []gauge.Line{{
		Figure: "commit → entry at 200/s, p99, beside an open transaction", Reach: "≤ 1.2 times without",
		Measured: gauge.Spread("%.2f", with.p99) + " ms", Baseline: "without " + gauge.Spread("%.2f", without.p99) + " ms",
		Ratio: fmt.Sprintf("%.2f", gauge.Ratio(with.p99, without.p99)), Reached: gauge.Ratio(with.p99, without.p99) <= 1.2,
		Notes: []string{"with     " + with.String(), "without  " + without.String()},
	}}, nil
}
