package cache

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	flowPipes   = 2  // on their way at once
	flowBatch   = 16 // that travel together: Redis does all of a pipeline before it turns to others
	flowTimeout = 2 * time.Second
)

// flowPipe carries what flows have to say to Redis. What comes while others are on their
// way goes together after that: a Redis that is far away would else hold up each flow for
// all the others, which have few connections.
type flowPipe struct {
	client redis.UniversalClient
	script *redis.Script

	mu      sync.Mutex
	waiting []*flowSend
	sending int
}

// flowSend is one call of flow.lua.
type flowSend struct {
	keys []string
	args []any

	done    chan struct{} // closed once what follows stands
	written bool
	err     error
}

func newFlowPipe(client redis.UniversalClient, script *redis.Script) *flowPipe {
	return &flowPipe{client: client, script: script}
}

// send has Redis run flow.lua, and reports whether that has written. What is given up
// because the context ends may be written all the same.
func (p *flowPipe) send(ctx context.Context, keys []string, args ...any) (written bool, err error) {
	one := &flowSend{keys: keys, args: args, done: make(chan struct{})}
	p.mu.Lock()
	p.waiting = append(p.waiting, one)
	alone := p.sending < flowPipes
	if alone {
		p.sending++
	}
	p.mu.Unlock()
	if alone {
		go p.run(context.WithoutCancel(ctx))
	}
	select {
	case <-one.done:
		return one.written, one.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// run sends until nothing waits.
func (p *flowPipe) run(ctx context.Context) {
	for {
		batch := p.take()
		if len(batch) == 0 {
			return
		}
		p.carry(ctx, batch)
	}
}

// take takes what travels together, or ends a run.
func (p *flowPipe) take() []*flowSend {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(p.waiting), flowBatch)
	batch := slices.Clone(p.waiting[:n])
	p.waiting = slices.Delete(p.waiting, 0, n)
	if n == 0 {
		p.sending--
	}
	return batch
}

// carry sends a batch and tells each of it how it went.
func (p *flowPipe) carry(ctx context.Context, batch []*flowSend) {
	ctx, cancel := context.WithTimeout(ctx, flowTimeout)
	defer cancel()
	pipe := p.client.Pipeline()
	said := make([]*redis.Cmd, len(batch))
	for i, one := range batch {
		said[i] = p.script.EvalSha(ctx, pipe, one.keys, one.args...)
	}
	_, _ = pipe.Exec(ctx) // each says how it went itself
	for i, one := range batch {
		if redis.HasErrorPrefix(said[i].Err(), "NOSCRIPT") {
			said[i] = p.script.Eval(ctx, p.client, one.keys, one.args...)
		}
		n, err := said[i].Int()
		if err != nil {
			one.err = fmt.Errorf("tell a piece of an answer: %w", err)
		}
		one.written = n == 1
		close(one.done)
	}
}
