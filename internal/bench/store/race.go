package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"mythiccache/internal/bench/gauge"
)

// contestant is one way of doing something to all keys.
type contestant struct {
	name    string
	prepare func(context.Context, []string) error // brings Redis into the state that it begins with
	do      func(context.Context, []string) error // to a batch of keys
}

// results are the measurements of each repetition, by contestant.
type results struct {
	rates map[string][]float64 // keys per second
	costs map[string][]float64 // processor time of Redis's main thread, µs per key
}

func newResults() results {
	return results{rates: map[string][]float64{}, costs: map[string][]float64{}}
}

// race runs contestants in turn over n keys.
func (b *bed) race(ctx context.Context, into results, n int, contestants ...contestant) error {
	keys := keysOf(b.scaled(n))
	for range b.repetitions() {
		for _, c := range contestants {
			rate, cost, err := b.run(ctx, c, keys)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			into.rates[c.name], into.costs[c.name] = append(into.rates[c.name], rate), append(into.costs[c.name], cost)
		}
	}
	return nil
}

func (b *bed) run(ctx context.Context, c contestant, keys []string) (rate, cost float64, err error) {
	if err := b.empty(ctx); err != nil {
		return 0, 0, err
	}
	if err := c.prepare(ctx, keys); err != nil {
		return 0, 0, err
	}
	before, err := b.cpu(ctx)
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	for some := range slices.Chunk(keys, batch) {
		if err := c.do(ctx, some); err != nil {
			return 0, 0, err
		}
	}
	took := time.Since(begun)
	after, err := b.cpu(ctx)
	n := float64(len(keys))
	return n / took.Seconds(), (after - before).Seconds() * 1e6 / n, err
}

// cpu is the processor time that Redis's main thread has used.
func (b *bed) cpu(ctx context.Context) (time.Duration, error) {
	info, err := b.client.InfoMap(ctx, "cpu").Result()
	if err != nil {
		return 0, fmt.Errorf("ask Redis for its processor time: %w", err)
	}
	var total time.Duration
	for _, of := range []string{"used_cpu_user_main_thread", "used_cpu_sys_main_thread"} {
		seconds, err := strconv.ParseFloat(info["CPU"][of], 64)
		if err != nil {
			return 0, fmt.Errorf("ask Redis for its processor time: %s: %w", of, err)
		}
		total += time.Duration(seconds * float64(time.Second))
	}
	return total, nil
}

// oneByOne does to each key of a batch by itself what do does to all at once.
func oneByOne(do func(context.Context, []string) error) func(context.Context, []string) error {
	return func(ctx context.Context, keys []string) error {
		for i := range keys {
			if err := do(ctx, keys[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	}
}

// line is ours beside another's, of which it is to reach a part.
func (r results) line(figure, ours, other string, part float64, notes ...string) gauge.Line {
	ratio := gauge.Ratio(r.rates[ours], r.rates[other])
	return gauge.Line{
		Figure: figure, Reach: fmt.Sprintf("≥ %g of %s", part, other), Measured: gauge.Spread("%.0f", r.rates[ours]) + "/s",
		Baseline: gauge.Spread("%.0f", r.rates[other]) + "/s", Ratio: fmt.Sprintf("%.2f", ratio), Reached: ratio >= part, Notes: notes,
	}
}

// cost tells what a key takes Redis itself, which the rest of the machine disturbs
// less than the time that passes.
func (r results) cost(names ...string) string {
	each := make([]string, len(names))
	for i, name := range names {
		each[i] = fmt.Sprintf("%s %s µs", name, gauge.Spread("%.2f", r.costs[name]))
	}
	return "processor time of Redis per key: " + strings.Join(each, ", ")
}

// note tells how one contestant does beside another.
func (r results) note(what, ours, other string) string {
	return fmt.Sprintf("%s: %s/s, which is %.2f of %s", what, gauge.Spread("%.0f", r.rates[ours]), gauge.Ratio(r.rates[ours], r.rates[other]), other)
}
