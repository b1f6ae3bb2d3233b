package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// flowRetry is how long after a failure of Redis a writer tries again.
const flowRetry = 50 * time.Millisecond

// FlowWriter tells those who wait for an answer what the model says of it. One
// goroutine sends; what comes while it is sending goes out together after that.
type FlowWriter struct {
	answers *Answers
	lease   Lease
	lost    func()

	mu      sync.Mutex
	pending [][]byte
	numbers int // pieces handed to Redis
	over    bool
	wake    chan struct{} // has room for one
	done    chan struct{} // closed when the goroutine has ended
}

// Flow begins a flow under the lease of its answer. It ends with End, or with the
// context. Lost is called, once and from another goroutine, when the lease turns out
// to be another's; what is added after that goes nowhere.
func (a *Answers) Flow(ctx context.Context, l Lease, lost func()) *FlowWriter {
	w := &FlowWriter{answers: a, lease: l, lost: lost, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run(ctx)
	return w
}

// Add tells the next part. It does not wait for Redis. Not after Close.
func (w *FlowWriter) Add(part FlowPart) error {
	text, err := json.Marshal(part)
	if err != nil {
		return fmt.Errorf("encode a piece of an answer: %w", err)
	}
	w.mu.Lock()
	w.pending = append(w.pending, text)
	w.mu.Unlock()
	w.nudge()
	return nil
}

func (w *FlowWriter) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close waits until all that was added has been told, or could not be. It is to be
// called before the lease ends, after which only End gets through.
func (w *FlowWriter) Close(ctx context.Context) error {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.nudge()
	select {
	case <-w.done:
	case <-ctx.Done():
		return fmt.Errorf("close a flow: %w", ctx.Err())
	}
	_, err := w.send(ctx, w.take(), "") // whatever its last attempt left
	return err
}

// End tells how the flow ended. It tries once: who follows finds the answer, or its
// failure, by other ways too.
func (w *FlowWriter) End(ctx context.Context, mark string) error {
	if err := w.Close(ctx); err != nil {
		return err
	}
	_, err := w.send(ctx, nil, mark)
	return err
}

// run sends what is added until the writer is over or the lease is lost.
func (w *FlowWriter) run(ctx context.Context) {
	defer close(w.done)
	for {
		pieces, over := w.take(), w.isOver()
		if len(pieces) == 0 {
			if over {
				return
			}
			select {
			case <-w.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		held, err := w.send(ctx, pieces, "")
		switch {
		case err == nil && !held:
			w.lost()
			return
		case err == nil:
			continue
		}
		w.putBack(pieces)
		if over { // Close tries once more
			return
		}
		select {
		case <-time.After(flowRetry):
		case <-ctx.Done():
			return
		}
	}
}

func (w *FlowWriter) isOver() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.over
}

func (w *FlowWriter) take() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	pieces := w.pending
	w.pending = nil
	return pieces
}

func (w *FlowWriter) putBack(pieces [][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = append(pieces, w.pending...)
}

// send runs flow.lua, and reports whether the flow is still ours.
func (w *FlowWriter) send(ctx context.Context, pieces [][]byte, mark string) (held bool, err error) {
	if len(pieces) == 0 && mark == "" {
		return true, nil
	}
	keys := w.answers.store.keys
	flow, name := keys.aiFlow(w.lease.Key), generation(w.lease)
	args := make([]any, 0, 7+len(pieces))
	args = append(args, flow, w.lease.token, name, flowFor.Milliseconds(), flowMost, mark, w.numbers)
	for i, piece := range pieces {
		sealed, err := w.answers.store.seals.close(piece, flowBound(flow, name, w.numbers+i))
		if err != nil {
			return false, err
		}
		args = append(args, sealed)
	}
	held, err = w.answers.pipe.send(ctx, []string{flow, keys.entry(w.lease.View.Name, w.lease.Key)}, args...)
	if err != nil {
		return false, err
	}
	w.numbers += len(pieces)
	return held, nil
}

// flowBound is what a sealed piece is bound to: it means nothing elsewhere.
func flowBound(flow, generation string, n int) string {
	return flow + " " + generation + " " + strconv.Itoa(n)
}
