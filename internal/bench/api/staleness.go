package api

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"mythiccache/internal/bench/gauge"
)

// What is read, and how often what is read changes.
const (
	staleRuns   = 50
	staleRate   = 4000
	staleEvery  = 5 * time.Millisecond
	staleLasts  = 20 * time.Second
	mostBehind  = 50 * time.Millisecond // at p99
	staleMetric = "mythic_cache_near_staleness_seconds_bucket"
)

// staleness has runs change all the time while many read them, and asks the API how long
// its memory went on giving what Redis had no more.
func staleness(ctx context.Context, b *bed) ([]gauge.Line, error) {
	header, err := b.bearer(user)
	if err != nil {
		return nil, err
	}
	runs, questions := make([]string, staleRuns), make([][]byte, staleRuns)
	for i := range runs {
		runs[i] = fmt.Sprintf("stale_%d", i)
		questions[i] = question(b.near.Address, "/status/"+runs[i], header)
	}
	if err := b.begin(ctx, runs...); err != nil {
		return nil, err
	}
	for _, run := range runs {
		if _, err := b.kept(ctx, b.near, "/status/"+run, header); err != nil {
			return nil, err
		}
	}
	before, err := b.behind(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.changing(ctx, runs, questions); err != nil {
		return nil, err
	}
	after, err := b.behind(ctx)
	if err != nil {
		return nil, err
	}
	for i := range after {
		after[i].n -= before[i].n
	}
	p99 := after.quantile(.99)
	return []gauge.Line{{
		Figure: "staleness that memory adds", Reach: fmt.Sprintf("≤ %d ms at p99", mostBehind.Milliseconds()),
		Measured: fmt.Sprintf("p50 ≤ %g ms, p99 ≤ %g ms", after.quantile(.5)*1e3, p99*1e3), Reached: p99 <= mostBehind.Seconds(),
		Notes: []string{fmt.Sprintf("of %.0f entries that were dropped and read again, at %d requests/s and %.0f changes/s; the machine's load at the end: %s",
			after.quantity(), staleRate, float64(time.Second/staleEvery), gauge.Load())},
	}}, nil
}

// changing changes runs in turn, under load.
func (b *bed) changing(ctx context.Context, runs []string, questions [][]byte) error {
	wires := make([]wire, connections)
	for i := range wires {
		wires[i].address = b.near.Address
	}
	defer func() {
		for i := range wires {
			wires[i].close()
		}
	}()
	load := make(chan struct{})
	go func() {
		defer close(load)
		pace{rate: staleRate, lasts: staleLasts}.keep(ctx, connections, func(worker, n int) {
			_, _ = wires[worker].ask(ctx, questions[n%len(questions)]) // what is not answered is not measured
		})
	}()
	change := time.NewTicker(staleEvery)
	defer change.Stop()
	var err error
	for n := 0; err == nil; n++ {
		select {
		case <-load:
			return nil
		case <-change.C:
			_, err = b.Conn.Exec(ctx, `SELECT mythic_cache.publish('run.progress', $1, jsonb_build_object('message', $2::text))`, runs[n%len(runs)], strconv.Itoa(n))
		}
	}
	<-load
	return fmt.Errorf("change a run: %w", err)
}

// buckets are a histogram's: how many were measured up to a bound, in seconds.
type buckets []struct{ most, n float64 }

// behind reads what the API says of its memory.
func (b *bed) behind(ctx context.Context) (buckets, error) {
	got, err := get(ctx, b.near.Address, "/metrics", nil)
	if err != nil {
		return nil, err
	}
	return readBuckets(string(got.body), staleMetric)
}

// readBuckets finds a histogram among metrics, in Prometheus's text.
func readBuckets(metrics, name string) (all buckets, err error) {
	for line := range strings.Lines(metrics) {
		rest, found := strings.CutPrefix(line, name+`{le="`)
		if !found {
			continue
		}
		bound, count, _ := strings.Cut(rest, `"} `)
		most, errBound := strconv.ParseFloat(bound, 64)
		n, errCount := strconv.ParseFloat(strings.TrimSpace(count), 64)
		if errBound != nil || errCount != nil {
			return nil, fmt.Errorf("odd metric %q", line)
		}
		all = append(all, struct{ most, n float64 }{most, n})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("there is no metric %s", name)
	}
	return all, nil
}

func (b buckets) quantity() float64 { return b[len(b)-1].n }

// quantile returns the bound of the bucket in which it is.
func (b buckets) quantile(q float64) float64 {
	for _, one := range b {
		if one.n >= q*b.quantity() && one.n > 0 {
			return one.most
		}
	}
	return math.Inf(1)
}
