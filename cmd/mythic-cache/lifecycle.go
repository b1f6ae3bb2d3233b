package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// stage is a part of the program that starts and stops as one: producers,
// consumers, API. Its tasks run until their context ends.
type stage struct {
	name     string
	patience time.Duration // how long its tasks may take to finish what is in flight
	tasks    []task
}

// task is one long-running component.
type task struct {
	name string
	run  func(context.Context) error
}

// add puts a task into the stage.
func (s *stage) add(name string, run func(context.Context) error) {
	s.tasks = append(s.tasks, task{name, run})
}

// errLeft is wrapped when a stage did not finish in time.
var errLeft = errors.New("did not finish in time")

// runStages runs all stages side by side until ctx ends or a task fails, and
// then stops them one after the other in their order, so that nobody writes to
// a part that has already gone. It returns the first failure.
func runStages(ctx context.Context, log zerolog.Logger, stages ...*stage) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	type running struct {
		*stage
		stop context.CancelFunc
		done chan struct{}
	}
	var all []running
	for _, s := range stages {
		// Detached: a stage hears of the end only when it is its turn.
		stageCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		r := running{stage: s, stop: stop, done: make(chan struct{})}
		all = append(all, r)
		var wg sync.WaitGroup
		for _, t := range s.tasks {
			wg.Go(func() {
				if err := t.run(stageCtx); err != nil && stageCtx.Err() == nil {
					fail(fmt.Errorf("%s: %w", t.name, err))
				}
			})
		}
		go func() {
			defer close(r.done)
			wg.Wait()
		}()
	}
	<-ctx.Done()
	var failure error
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		failure = cause
	}
	log.Info().Msg("stopping")
	for _, r := range all {
		r.stop()
		timer := time.NewTimer(r.patience)
		select {
		case <-r.done:
			log.Info().Str("stage", r.name).Msg("stopped")
		case <-timer.C:
			log.Error().Str("stage", r.name).Dur("patience", r.patience).Msg("stage did not stop in time")
			failure = errors.Join(failure, fmt.Errorf("%s: %w", r.name, errLeft))
		}
		timer.Stop()
	}
	return failure
}

// parts is what the program needs to be ready, each with what keeps it from
// being so. It is safe for concurrent use.
type parts struct {
	mu    sync.Mutex
	check map[string]func() error
}

// watch asks check, whenever somebody wants to know, whether the part is ready.
func (p *parts) watch(name string, check func() error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.check == nil {
		p.check = make(map[string]func() error)
	}
	p.check[name] = check
}

// part is a state that its owner sets. The zero part is not ready.
type part struct {
	mu  sync.Mutex
	set bool
	err error
}

// errStarting is what a part says before anybody has set it.
var errStarting = errors.New("is starting")

// report sets the state, and reports whether it changed.
func (p *part) report(err error) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = !p.set || fmt.Sprint(err) != fmt.Sprint(p.err)
	p.set, p.err = true, err
	return changed
}

// Ready returns what keeps the part from being ready.
func (p *part) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.set {
		return errStarting
	}
	return p.err
}

// states returns every part with what keeps it from being ready, nil for what is.
func (p *parts) states() map[string]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := make(map[string]error, len(p.check))
	for name, check := range p.check {
		states[name] = check()
	}
	return states
}
