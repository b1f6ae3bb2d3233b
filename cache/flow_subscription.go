package cache

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Flows are those in this process who follow answers that are being made. They share
// one connection, whatever their number.
type Flows struct {
	store *Store

	mu        sync.Mutex
	following map[string]map[*FlowReader]struct{}
	wanted    map[string]bool // channels that are to be subscribed to, or left
	joining   chan struct{}   // has room for one: some are wanted
}

// NewFlows makes flows, of which nothing is heard until Run.
func (s *Store) NewFlows() *Flows {
	return &Flows{
		store: s, following: map[string]map[*FlowReader]struct{}{}, joining: make(chan struct{}, 1), wanted: map[string]bool{},
	}
}

// Follow reads the flow of an answer from its start. Close the reader when done.
func (f *Flows) Follow(key string) *FlowReader {
	flow := f.store.keys.aiFlow(key)
	r := &FlowReader{flows: f, key: key, flow: flow, wake: make(chan struct{}, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.following[flow] == nil {
		f.following[flow] = map[*FlowReader]struct{}{}
		f.want(flow, true)
	} else {
		// The channel may have been subscribed to long ago: nothing will say so again.
		r.look = true
	}
	f.following[flow][r] = struct{}{}
	return r
}

func (f *Flows) leave(r *FlowReader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.following[r.flow], r)
	if len(f.following[r.flow]) == 0 {
		delete(f.following, r.flow)
		f.want(r.flow, false)
	}
}

// want notes a channel that is to be subscribed to, or left. It is called with the
// lock held.
func (f *Flows) want(flow string, join bool) {
	f.wanted[flow] = join
	select {
	case f.joining <- struct{}{}:
	default:
	}
}

// Following returns how many readers there are.
func (f *Flows) Following() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, readers := range f.following {
		n += len(readers)
	}
	return n
}

// Run listens until the context ends, connecting again whenever the connection is
// lost; who follows a flow then reads what was missed. Call it once.
func (f *Flows) Run(ctx context.Context) error {
	return again(ctx, func(ctx context.Context) (heard bool) {
		began := time.Now()
		if lost := f.listen(ctx); ctx.Err() == nil {
			f.store.log.Debug().Err(lost).Msg("lost the subscription to flows")
		}
		return time.Since(began) > lastPause
	})
}

// listen subscribes to what is followed and delivers until the connection fails or
// the context ends.
func (f *Flows) listen(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	sub := f.store.client.Subscribe(ctx, f.channels()...)
	var joining sync.WaitGroup
	joining.Go(func() { f.join(ctx, sub) })
	defer func() {
		cancel()
		joining.Wait()
	}()
	return hear(ctx, sub, f.deliver)
}

// channels returns what is followed, for a connection that begins with all of it.
func (f *Flows) channels() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted = map[string]bool{}
	return slices.Collect(maps.Keys(f.following))
}

// join subscribes to what somebody follows, and leaves what nobody does.
func (f *Flows) join(ctx context.Context, sub *redis.PubSub) {
	for {
		select {
		case <-f.joining:
		case <-ctx.Done():
			return
		}
		f.mu.Lock()
		wanted := f.wanted
		f.wanted = map[string]bool{}
		f.mu.Unlock()
		var joined, left []string
		for flow, join := range wanted {
			if join {
				joined = append(joined, flow)
			} else {
				left = append(left, flow)
			}
		}
		// A failure is that of the connection, which begins anew with all channels.
		if len(left) > 0 {
			f.note(sub.Unsubscribe(ctx, left...))
		}
		if len(joined) > 0 {
			f.note(sub.Subscribe(ctx, joined...))
		}
	}
}

func (f *Flows) note(err error) {
	if err != nil {
		f.store.log.Debug().Err(fmt.Errorf("subscribe to flows: %w", err)).Msg("flows not heard")
	}
}

// deliver hands a message to those who follow its flow.
func (f *Flows) deliver(message any) {
	switch m := message.(type) {
	case *redis.Subscription:
		if m.Kind == "subscribe" {
			f.tell(m.Channel, nil)
		}
	case *redis.Message:
		piece, err := f.store.publishedPiece(m)
		if err != nil {
			f.tell(m.Channel, nil) // whoever reads the stream finds out
			return
		}
		f.tell(m.Channel, &piece)
	}
}

func (f *Flows) tell(flow string, piece *FlowPiece) {
	f.mu.Lock()
	readers := make([]*FlowReader, 0, len(f.following[flow]))
	for r := range f.following[flow] {
		readers = append(readers, r)
	}
	f.mu.Unlock()
	for _, r := range readers {
		r.hear(piece)
	}
}
