package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"mythiccache/internal/bench/gauge"
)

// What an outage is, and what it is to cost.
const (
	outageRuns    = 400 // each read by somebody else
	outageUsers   = 100 // of them have books as well
	outageRate    = 2000
	outageLasts   = time.Minute
	outageSettles = 5 * time.Second
	mostStale     = 2 * time.Second
)

// outages takes Redis away in two ways.
func outages(ctx context.Context, b *bed) ([]gauge.Line, error) {
	var lines []gauge.Line
	for _, way := range []struct {
		name        string
		leave, come func() error
	}{
		{"frozen", b.Redis.Freeze, b.Redis.Thaw},
		{"stopped", func() error { b.Redis.Stop(); return nil }, func() error { return b.Redis.Start(ctx) }},
	} {
		o, err := b.outage(ctx, way.name, way.leave, way.come)
		if err != nil {
			return nil, fmt.Errorf("Redis %s: %w", way.name, err)
		}
		lines = append(lines, o.lines(way.name)...)
	}
	return lines, nil
}

// outage is what was seen in one. Its moments are nanoseconds since it began.
type outage struct {
	questions []asked
	begun     time.Time
	message   string       // of the runs that were changed meanwhile
	returned  atomic.Int64 // when Redis was back; 0: not yet
	stale     atomic.Int64 // when the last answer was asked for that was not fresh
	old       atomic.Int64 // when the last one of what was changed was asked for that did not have the change
	n, kept   atomic.Int64 // answers, and those of them that were STALE
	errors    atomic.Int64
	first     atomic.Pointer[error]
	slowest   time.Duration
}

// asked is one key as one caller asks for it.
type asked struct {
	path     string
	header   http.Header
	question []byte
	changed  bool // while Redis was away
}

// outage has everything warm, and all of it asked for while Redis is away and for a
// while after.
func (b *bed) outage(ctx context.Context, name string, leave, come func() error) (*outage, error) {
	o := &outage{message: "while redis was " + name}
	if err := o.prepare(ctx, b, name); err != nil {
		return nil, err
	}
	wires := make([]wire, connections)
	for i := range wires {
		wires[i].address = b.near.Address
	}
	defer func() {
		for i := range wires {
			wires[i].close()
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.begun = time.Now()
	load := make(chan []time.Duration, 1)
	go func() {
		load <- pace{rate: outageRate}.keep(ctx, connections, func(worker, n int) { o.ask(context.WithoutCancel(ctx), &wires[worker], n) })
	}()
	err := b.during(ctx, o, leave, come)
	cancel()
	took := <-load
	if err == nil && len(took) > 0 {
		o.slowest = gauge.Quantile(took, 1)
	}
	return o, err
}

// prepare begins the runs, and reads all until this process's API has it in memory.
func (o *outage) prepare(ctx context.Context, b *bed, name string) error {
	runs := make([]string, outageRuns)
	for i := range runs {
		runs[i] = fmt.Sprintf("%s_%d", name, i)
	}
	if err := b.begin(ctx, runs...); err != nil {
		return err
	}
	for i, run := range runs {
		caller := fmt.Sprintf("user_%d", i+1)
		header, err := b.bearer(caller)
		if err != nil {
			return err
		}
		o.questions = append(o.questions, asked{path: "/status/" + run, header: header, changed: i < outageRuns/10})
		if i < outageUsers {
			o.questions = append(o.questions, asked{path: "/books/my", header: header})
		}
	}
	for i := range o.questions {
		q := &o.questions[i]
		q.question = question(b.near.Address, q.path, q.header)
		if _, err := b.kept(ctx, b.near, q.path, q.header); err != nil {
			return err
		}
	}
	return nil
}

// during takes Redis away and gives it back, with a change in between.
func (b *bed) during(ctx context.Context, o *outage, leave, come func() error) error {
	const before = 2 * time.Second
	if err := pause(ctx, before); err != nil {
		return err
	}
	if err := leave(); err != nil {
		return err
	}
	if err := pause(ctx, outageLasts/2); err != nil {
		return errors.Join(err, come())
	}
	err := o.change(ctx, b)
	err = errors.Join(err, pause(ctx, outageLasts/2), come())
	o.returned.Store(int64(time.Since(o.begun)))
	return errors.Join(err, pause(ctx, outageSettles))
}

// change changes a tenth of the runs.
func (o *outage) change(ctx context.Context, b *bed) error {
	for _, q := range o.questions {
		if !q.changed {
			continue
		}
		run := q.path[len("/status/"):]
		if _, err := b.Conn.Exec(ctx, `SELECT mythic_cache.publish('run.progress', $1, jsonb_build_object('message', $2::text))`, run, o.message); err != nil {
			return fmt.Errorf("change a run: %w", err)
		}
	}
	return nil
}

// ask asks for one of the keys and notes what came.
func (o *outage) ask(ctx context.Context, w *wire, n int) {
	q := &o.questions[n%len(o.questions)]
	at := int64(time.Since(o.begun))
	a, err := w.ask(ctx, q.question)
	o.n.Add(1)
	switch {
	case err == nil && a.status != http.StatusOK:
		err = fmt.Errorf("%s is answered with %d %s", q.path, a.status, a.body)
	case err == nil && a.mark == "STALE":
		o.kept.Add(1)
		latest(&o.stale, at)
	}
	if err == nil && q.changed && !bytes.Contains(a.body, []byte(o.message)) {
		latest(&o.old, at)
	}
	if err != nil {
		err = fmt.Errorf("%.3f s after its beginning: %w", float64(at)/1e9, err)
		o.errors.Add(1)
		o.first.CompareAndSwap(nil, &err)
	}
}

// latest keeps the later moment.
func latest(of *atomic.Int64, at int64) {
	for {
		was := of.Load()
		if was >= at || of.CompareAndSwap(was, at) {
			return
		}
	}
}

// lines are what an outage adds to the table.
func (o *outage) lines(name string) []gauge.Line {
	since := func(at *atomic.Int64) time.Duration { return time.Duration(max(0, at.Load()-o.returned.Load())) }
	stale, old := since(&o.stale), since(&o.old)
	notes := []string{fmt.Sprintf("%d requests for %d keys of %d callers at %d/s, %d of them answered STALE; the slowest took %.0f ms",
		o.n.Load(), len(o.questions), outageRuns, outageRate, o.kept.Load(), o.slowest.Seconds()*1000)}
	if first := o.first.Load(); first != nil {
		notes = append(notes, "the first error: "+(*first).Error())
	}
	return []gauge.Line{
		{
			Figure: fmt.Sprintf("Redis %s for a minute, errors on warm keys", name), Reach: "0", Measured: fmt.Sprint(o.errors.Load()),
			Reached: o.errors.Load() == 0, Notes: notes,
		},
		{
			Figure: fmt.Sprintf("Redis %s for a minute, back to fresh", name), Reach: fmt.Sprintf("≤ %s", mostStale),
			Measured: fmt.Sprintf("%.2f s", max(stale, old).Seconds()), Reached: max(stale, old) <= mostStale,
			Notes: []string{fmt.Sprintf("the last STALE answer was asked for %.2f s after its return, the last one without what was changed meanwhile %.2f s", stale.Seconds(), old.Seconds())},
		},
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
