package ai

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/modelserver"
)

const (
	mostSlower    = 1.2 // times
	slowRounds    = 5   // of each company
	thinking      = time.Second
	writeRate     = 200 // commits/s
	writesOfRound = 6 * writeRate
)

// company is what goes on beside the writes.
type company struct {
	name  string
	siege *siege // nil: nothing
	// thinks is how long the model does over its n-th call before the first word.
	thinks func(n int) time.Duration

	delays
	answers int
}

// companies are none; those who ask the model itself, as many at a time as a worker would,
// which tells what they and the model cost the machine; and those who ask the program while
// the model ends its answers one by one, or all in the same millisecond.
func (b *bed) companies() (alone, bare, apart, together *company) {
	steady := func(int) time.Duration { return thinking }
	return &company{name: "alone"},
		&company{name: "the model asked directly", siege: &siege{address: b.model.Address(), atATime: places}, thinks: steady},
		&company{name: "ending one by one", siege: &siege{address: b.api.Address, atATime: waiting}, thinks: func(n int) time.Duration {
			return thinking/2 + time.Duration(n*37%100)*thinking/100
		}},
		&company{name: "ending together", siege: &siege{address: b.api.Address, atATime: waiting}, thinks: steady}
}

// saturated measures how soon what a commit changed is invalidated, by turns without
// questions and while more ask a slow model than are let through.
func saturated(ctx context.Context, b *bed) ([]gauge.Line, error) {
	if _, err := b.follow(ctx, writesOfRound/4); err != nil { // until all of it is warm
		return nil, err
	}
	alone, bare, apart, together := b.companies()
	for round := range slowRounds {
		for _, c := range []*company{alone, bare, apart, together} {
			if err := b.keep(ctx, c, round); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	var lines []gauge.Line
	for _, c := range []*company{apart, together} {
		p50, p99 := gauge.Ratio(c.p50, alone.p50), gauge.Ratio(c.p99, alone.p99)
		lines = append(lines, gauge.Line{
			Figure: fmt.Sprintf("commit → invalidated at %d/s while %d wait for a model, p99, answers %s", writeRate, waiting, c.name),
			Reach:  fmt.Sprintf("≤ %g × without", mostSlower), Measured: gauge.Spread("%.2f", c.p99) + " ms", Baseline: gauge.Spread("%.2f", alone.p99) + " ms",
			Ratio: fmt.Sprintf("%.2f", p99), Reached: p99 <= mostSlower && p50 <= mostSlower,
			Notes: []string{fmt.Sprintf("%d answers of 20 words were made meanwhile; ratio at p50 %.2f", c.answers, p50)},
		})
	}
	last := &lines[len(lines)-1]
	last.Notes = append(last.Notes, fmt.Sprintf("%d rounds of %d writes each, each of another key:", slowRounds, writesOfRound))
	for _, c := range []*company{alone, bare, apart, together} {
		last.Notes = append(last.Notes, fmt.Sprintf("  %-25s%s", c.name, c.String()))
	}
	return lines, nil
}

// keep makes the writes of a round in company.
func (b *bed) keep(ctx context.Context, c *company, round int) error {
	if c.siege == nil {
		return b.measure(ctx, &c.delays)
	}
	answer := strings.Repeat("Salt and light and all. ", 4)
	b.model.Respond(func(call modelserver.Call) modelserver.Reply {
		return modelserver.Reply{Delay: c.thinks(call.Number), Text: answer, Pace: thinking / 20}
	})
	answers, err := b.besieged(ctx, c.siege, fmt.Sprintf("%s, round %d", c.name, round), func() error { return b.measure(ctx, &c.delays) })
	c.answers += answers
	return errors.Join(err, await(ctx, "the questions are over", func() error { return b.quiet(ctx, 0) }))
}

// delays are the 50th and 99th percentiles of rounds, in ms, and the time that the worker
// used of a processor, in %.
type delays struct{ p50, p99, used []float64 }

// measure makes the writes of a round.
func (b *bed) measure(ctx context.Context, d *delays) error {
	before, err := gauge.CPU(b.workers.PID())
	if err != nil {
		return err
	}
	begun := time.Now()
	late, err := b.follow(ctx, writesOfRound)
	if err != nil {
		return err
	}
	took := time.Since(begun)
	after, err := gauge.CPU(b.workers.PID())
	d.p50, d.p99 = append(d.p50, gauge.Median(late)), append(d.p99, gauge.Quantile(late, .99))
	d.used = append(d.used, 100*(after-before).Seconds()/took.Seconds())
	return err
}

func (d *delays) String() string {
	return fmt.Sprintf("p50 %s ms, p99 %s ms; the worker used %s %% of a processor",
		gauge.Spread("%.2f", d.p50), gauge.Spread("%.2f", d.p99), gauge.Spread("%.0f", d.used))
}
