package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// ErrFlowTorn says that a flow cannot be told from its start, or not be read. The
// answer itself is still to be had.
var ErrFlowTorn = errors.New("the flow has gaps")

// flowQueue is how many published pieces wait for a reader that is busy. One that
// falls further behind reads the stream again.
const flowQueue = 256

// FlowReader reads one flow from its start, then as it comes. It is not safe for
// concurrent use.
type FlowReader struct {
	flows *Flows
	key   string
	flow  string // name of stream and channel

	mu    sync.Mutex
	queue []FlowPiece
	look  bool          // the stream is to be read: pieces may have been missed
	wake  chan struct{} // has room for one

	last       flowID
	generation string
	next       int
	ready      []FlowPiece // read from the stream, or taken off the queue
}

// Next waits for the next piece. Pieces come in order and once; when the generation
// is another than before, a successor of a worker that died begins from the start.
// After a piece with End there may be another generation: a failure was tried again.
// The error is the context's, ErrFlowTorn, or one of Redis, after which Next may be
// called again.
func (r *FlowReader) Next(ctx context.Context) (FlowPiece, error) {
	for {
		for len(r.ready) > 0 {
			p := r.ready[0]
			r.ready = r.ready[1:]
			if !p.id.after(r.last) {
				continue
			}
			if whole := r.follows(p); !whole {
				if err := r.fetch(ctx); err != nil { // it may stand in the stream
					return FlowPiece{}, err
				}
				if len(r.ready) == 0 || !r.follows(r.ready[0]) {
					return FlowPiece{}, ErrFlowTorn
				}
				continue
			}
			r.last, r.generation, r.next = p.id, p.Generation, p.Number+1
			return p, nil
		}
		if err := r.more(ctx); err != nil {
			return FlowPiece{}, err
		}
	}
}

// follows reports whether a piece is the one that is due, or a first one.
func (r *FlowReader) follows(p FlowPiece) bool {
	if p.Generation != r.generation {
		return p.Number == 0
	}
	return p.Number == r.next
}

// more waits until there are pieces, or the stream is to be read, and does.
func (r *FlowReader) more(ctx context.Context) error {
	r.mu.Lock()
	look := r.look
	r.look = false
	r.ready, r.queue = r.queue, nil
	r.mu.Unlock()
	if look {
		// What was published meanwhile is in the stream, and skipped by its id.
		if err := r.fetch(ctx); err != nil {
			r.mu.Lock()
			r.look = true
			r.mu.Unlock()
			return err
		}
		return nil
	}
	if len(r.ready) > 0 {
		return nil
	}
	select {
	case <-r.wake:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("follow a flow: %w", ctx.Err())
	}
}

// fetch reads what stands in the stream behind the last piece.
func (r *FlowReader) fetch(ctx context.Context) error {
	store := r.flows.store
	entries, err := store.client.XRange(ctx, r.flow, "("+r.last.String(), "+").Result()
	if err != nil {
		return fmt.Errorf("read a flow: %w", err)
	}
	r.ready = nil
	for _, e := range entries {
		g, _ := e.Values["g"].(string)
		n, _ := e.Values["n"].(string)
		kind := "c"
		what, ok := e.Values[kind].(string)
		if !ok {
			kind = "end"
			what, _ = e.Values[kind].(string)
		}
		p, err := store.flowPiece(r.flow, e.ID, g, n, kind, what)
		if err != nil {
			return err
		}
		r.ready = append(r.ready, p)
	}
	if n := len(r.ready); n > 0 && r.ready[n-1].End != "" {
		for i := range r.ready {
			r.ready[i].Over = r.ready[i].Generation == r.ready[n-1].Generation
		}
	}
	return nil
}

// Close ends the reader.
func (r *FlowReader) Close() { r.flows.leave(r) }

// hear takes a published piece; nil, or too many, mean that the stream is to be read.
func (r *FlowReader) hear(p *FlowPiece) {
	r.mu.Lock()
	if p == nil || len(r.queue) >= flowQueue {
		r.queue, r.look = nil, true
	} else {
		r.queue = append(r.queue, *p)
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// flowPiece reads a piece as it stands in the stream.
func (s *Store) flowPiece(flow, id, g, n, kind, what string) (FlowPiece, error) {
	number, err := strconv.Atoi(n)
	at, ok := parseFlowID(id)
	if err != nil || !ok {
		return FlowPiece{}, fmt.Errorf("%w: a piece has no number", ErrFlowTorn)
	}
	p := FlowPiece{Generation: g, Number: number, id: at}
	if kind == "end" {
		p.End = what
		return p, nil
	}
	text, err := s.seals.open([]byte(what), flowBound(flow, g, number))
	if err != nil {
		s.seals.count()
		return FlowPiece{}, fmt.Errorf("%w: %w", ErrFlowTorn, err)
	}
	if err := json.Unmarshal(text, &p.Part); err != nil {
		return FlowPiece{}, fmt.Errorf("%w: a piece is no JSON", ErrFlowTorn)
	}
	return p, nil
}

// publishedPiece reads a piece as it was published.
func (s *Store) publishedPiece(m *redis.Message) (FlowPiece, error) {
	fields := strings.SplitN(m.Payload, " ", 5)
	if len(fields) != 5 {
		return FlowPiece{}, fmt.Errorf("%w: a piece lacks fields", ErrFlowTorn)
	}
	return s.flowPiece(m.Channel, fields[0], fields[1], fields[2], fields[3], fields[4])
}
