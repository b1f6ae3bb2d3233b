package ai

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/modelserver"
)

const (
	mostSlower    = 1.2 // times
	slowRounds    = 5   // with and without questions, each
	waiting       = 300 // who ask at once
	thinking      = time.Second
	writeRate     = 200 // commits/s
	writesOfRound = 6 * writeRate
)

// saturated measures how soon what a commit changed is invalidated, by turns without
// questions and while more ask a slow model than are let through.
func saturated(ctx context.Context, b *bed) ([]gauge.Line, error) {
	answer := strings.Repeat("Salt and light and all. ", 4)
	b.model.Respond(func(modelserver.Call) modelserver.Reply {
		return modelserver.Reply{Delay: thinking, Text: answer, Pace: thinking / 20}
	})
	if _, err := b.follow(ctx, writesOfRound/4); err != nil { // until all of it is warm
		return nil, err
	}
	var alone, beside delays
	answers := 0
	for round := range slowRounds {
		if err := b.measure(ctx, &alone); err != nil {
			return nil, err
		}
		n, err := b.besieged(ctx, round, func() error { return b.measure(ctx, &beside) })
		if err != nil {
			return nil, err
		}
		answers += n
	}
	p50, p99 := gauge.Ratio(beside.p50, alone.p50), gauge.Ratio(beside.p99, alone.p99)
	return []gauge.Line{{
		Figure: fmt.Sprintf("commit → invalidated at %d/s while %d wait for a model, p99", writeRate, waiting), Reach: fmt.Sprintf("≤ %g × without", mostSlower),
		Measured: gauge.Spread("%.2f", beside.p99) + " ms", Baseline: gauge.Spread("%.2f", alone.p99) + " ms",
		Ratio: fmt.Sprintf("%.2f", p99), Reached: p99 <= mostSlower && p50 <= mostSlower,
		Notes: []string{
			fmt.Sprintf("%d rounds of %d writes each, each of another key; %d answers of 20 words were made meanwhile", slowRounds, writesOfRound, answers),
			"without questions  " + alone.String(), "with them          " + beside.String(), fmt.Sprintf("ratio at p50       %.2f", p50),
		},
	}}, nil
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

// besieged does something while many ask, each anew when it has an answer, and returns
// how many answers there were.
func (b *bed) besieged(ctx context.Context, round int, do func() error) (answers int, err error) {
	over := make(chan struct{})
	var told atomic.Int64
	var asking sync.WaitGroup
	failed := make(chan error, waiting)
	for n := range waiting {
		asking.Go(func() {
			a, err := b.dial(ctx)
			if err != nil {
				failed <- err
				return
			}
			asking.Go(func() { <-over; a.close() }) // whatever it waits for
			failed <- a.askOn(over, &told, func(i int) []byte {
				return b.requestFor(fmt.Sprintf("chapter %d of %d in %d", i, n, round), n%2 == 0)
			})
		})
	}
	calls := len(b.model.Calls())
	err = await(ctx, "the model is slow", func() error {
		if n := len(b.model.Calls()) - calls; n < 64 {
			return fmt.Errorf("it was called %d times", n)
		}
		return nil
	})
	if err == nil {
		err = do()
	}
	close(over)
	asking.Wait()
	close(failed)
	for one := range failed {
		err = errors.Join(err, one)
	}
	return int(told.Load()), errors.Join(err, await(ctx, "the questions are over", func() error { return b.quiet(ctx, 0) }))
}

// askOn asks one thing after the other until it is over, when its connection is closed.
func (a *asker) askOn(over <-chan struct{}, told *atomic.Int64, question func(n int) []byte) error {
	for n := 0; ; n++ {
		_, _, err := a.ask(question(n))
		select {
		case <-over:
			return nil
		default:
		}
		if err != nil {
			return err
		}
		told.Add(1)
	}
}
