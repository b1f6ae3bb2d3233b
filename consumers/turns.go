package consumers

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrBusy says that as many loads are under way, of the view or in all, as may be.
// It passes by itself when they end.
var ErrBusy = errors.New("too many loads are under way")

// turns bound the loads of one view and those of all views, so that neither a view
// whose loads take long nor several of them hold every connection.
type turns struct {
	ofView int
	all    chan struct{}

	mu    sync.Mutex
	views map[string]chan struct{}
}

func newTurns(ofView, all int) *turns {
	return &turns{ofView: ofView, all: make(chan struct{}, all), views: map[string]chan struct{}{}}
}

// take waits for a turn, first come, first served, and returns what gives it back.
// Its error is ErrBusy when there was none for so long, or the context's. Who has no
// patience gets a turn that is free.
func (t *turns) take(ctx context.Context, view string, patience time.Duration) (give func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, ErrBusy)
	defer cancel()
	own := t.of(view)
	if err := enter(ctx, own); err != nil {
		return nil, err
	}
	if err := enter(ctx, t.all); err != nil {
		<-own
		return nil, err
	}
	return func() {
		<-t.all
		<-own
	}, nil
}

// of returns the turns of one view.
func (t *turns) of(view string) chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.views[view] == nil {
		t.views[view] = make(chan struct{}, t.ofView)
	}
	return t.views[view]
}

func enter(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	default:
	}
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
