package api

import (
	"context"
	"errors"
)

// How many look tokens up at once, fewer than the store has connections, and how many
// may wait for that.
const (
	lookAtOnce  = 8
	lookWaiting = 1024
)

// errCrowd says that too many wait, errTurn that those before took too long. Neither says
// that Redis is away.
var (
	errCrowd = errors.New("too many tokens wait to be looked up")
	errTurn  = errors.New("the tokens before took too long to be looked up")
)

// queue is where those wait who look tokens up.
type queue struct {
	waiting chan struct{} // those who look included
	looking chan struct{}
}

func newQueue() *queue {
	return &queue{waiting: make(chan struct{}, lookWaiting), looking: make(chan struct{}, lookAtOnce)}
}

// enter returns when it is the caller's turn, who has to leave then. Its error is
// errCrowd where too many wait already, and errTurn where the context has ended before
// the turn came.
func (q *queue) enter(ctx context.Context) error {
	select {
	case q.waiting <- struct{}{}:
	default:
		return errCrowd
	}
	select {
	case q.looking <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-q.waiting
		return errTurn
	}
}

// leave lets the next one have a turn.
func (q *queue) leave() {
	<-q.looking
	<-q.waiting
}
