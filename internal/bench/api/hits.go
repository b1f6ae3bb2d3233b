package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"mythiccache/internal/bench/gauge"
)

const (
	rounds      = 9
	roundPeriod = 3 * time.Second
)

// results are the measurements of each round, by contestant.
type results struct {
	rates map[string][]float64 // requests per second
	costs map[string][]float64 // processor time of the server, µs per request
	redis map[string][]float64 // processor time of Redis, µs per request
}

// race asks contestants in turn.
func race(ctx context.Context, all []*contestant, times int, period time.Duration) (results, error) {
	r := results{rates: map[string][]float64{}, costs: map[string][]float64{}, redis: map[string][]float64{}}
	for range times {
		for _, c := range all {
			got, err := c.wrk(ctx, period)
			if err != nil {
				return r, fmt.Errorf("%s: %w", c.name, err)
			}
			r.rates[c.name] = append(r.rates[c.name], got.rate)
			r.costs[c.name] = append(r.costs[c.name], got.cpu.server.Seconds()*1e6/float64(got.n))
			r.redis[c.name] = append(r.redis[c.name], got.cpu.redis.Seconds()*1e6/float64(got.n))
		}
	}
	return r, nil
}

// hits measures requests for a document that is there.
func hits(ctx context.Context, b *bed) ([]gauge.Line, error) {
	f, err := b.field(ctx)
	if err != nil {
		return nil, err
	}
	r, err := race(ctx, f.all, rounds, roundPeriod)
	if err != nil {
		return nil, err
	}
	lines := []gauge.Line{
		r.line("hit, near cache on", oursNear, fromMemory, .85),
		r.line("hit, near cache on", oursNear, withRedis, 1.5),
		r.line("hit, near cache on", oursNear, ofWebdis, 1.2),
		r.line("hit, near cache off", oursDistant, withRedis, 1),
		r.line("hit, near cache off", oursDistant, ofWebdis, .9),
		r.line("304, near cache on", ours304, oursNear, 1),
		r.beside(oursNear, ofNode),
		r.beside(oursNear, ofPython),
	}
	lines = slices.DeleteFunc(lines, func(l gauge.Line) bool { return l.Measured == "" })
	lines[0].Notes = append(slices.Concat(r.notes(f), f.missing), "the machine's load at the end: "+gauge.Load())
	return lines, nil
}

// line is ours beside another's, of which it is to reach a part; an empty one where
// the other is missing.
func (r results) line(figure, ours, other string, part float64) gauge.Line {
	if len(r.rates[other]) == 0 {
		return gauge.Line{}
	}
	ratio := gauge.Ratio(r.rates[ours], r.rates[other])
	return gauge.Line{
		Figure: figure, Reach: fmt.Sprintf("≥ %g of %s", part, other), Measured: gauge.Spread("%.0f", r.rates[ours]) + "/s",
		Baseline: gauge.Spread("%.0f", r.rates[other]) + "/s", Ratio: fmt.Sprintf("%.2f", ratio), Reached: ratio >= part,
	}
}

// beside is a line of what is shown and not judged.
func (r results) beside(ours, other string) gauge.Line {
	l := r.line("hit, near cache on", ours, other, 0)
	if l.Measured != "" {
		l.Reach = "beside " + other
	}
	return l
}

// notes tell what a request costs each server itself, and Redis, which the machine's
// other work disturbs less than the time that passes.
func (r results) notes(f *field) []string {
	notes := []string{"processor time of the server a request, and of Redis:"}
	for _, c := range f.all {
		notes = append(notes, fmt.Sprintf("  %s %s µs, %s µs", c.name, gauge.Spread("%.1f", r.costs[c.name]), gauge.Spread("%.1f", r.redis[c.name])))
	}
	return notes
}
