package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"mythiccache/cache"
)

// announce sets the fields of the header that tell of the cache.
func (x *exchange) announce(from source, e cache.Entry) {
	h := x.Header()
	h["Vary"] = x.server.fixed.vary
	h["Cache-Control"] = x.server.fixed.noStore
	h["X-Cache"] = x.server.fixed.marks(from.mark)
	if e.Saved.IsZero() {
		h["Cache-Status"] = []string{from.cacheStatus(false, 0)}
		return
	}
	v := &x.values
	v.begin("Cache-Status")
	v.text = from.appendCacheStatus(v.text, true, floorSeconds(e.FreshUntil.Sub(from.at)))
	v.begin("Age")
	v.text = strconv.AppendInt(v.text, max(floorSeconds(from.at.Sub(e.Saved)), 0), 10)
}

// formBytes is about what OpenAI's form of an answer has more than ours.
const formBytes = 256

// spare sends an answer that was there when it was asked for.
func (d *chatDesk) spare(x *exchange, c chat, e cache.Entry, from source) error {
	a, err := c.answer(e)
	if err != nil {
		return err
	}
	d.sparedBy(&c.question, e, &a)
	return d.show(x, c, e, &a, from)
}

// replay sends an answer that is there, whole or as a stream.
func (d *chatDesk) replay(x *exchange, c chat, e cache.Entry, from source) error {
	a, err := c.answer(e)
	if err != nil {
		return err
	}
	return d.show(x, c, e, &a, from)
}

// answer reads the answer of the caller's question.
func (c *chat) answer(e cache.Entry) (a cache.Answer, err error) {
	if e.Negative || e.Owned && e.Owner != c.scope {
		return a, notFound() // the scope is in the key: this cannot be
	}
	if a, err = cache.ReadAnswer(e.Body); err != nil {
		return a, errors.New("an answer in the cache cannot be read") // the error might quote it
	}
	return a, nil
}

func (d *chatDesk) show(x *exchange, c chat, e cache.Entry, a *cache.Answer, from source) error {
	x.announce(from, e)
	if c.stream {
		return newChatStream(x, c, d.times.patience).whole(*a)
	}
	text := appendCompletion(make([]byte, 0, len(e.Body)+formBytes), a)
	x.Header()["Content-Type"] = x.server.fixed.json
	x.values.begin("Content-Length")
	x.values.text = strconv.AppendInt(x.values.text, int64(len(text)), 10)
	x.WriteHeader(http.StatusOK)
	_, _ = x.Write(text) // the client may be gone
	return nil
}

// answered is what became of an answer that was waited for.
type answered struct {
	got filled
	err error
}

// follow streams an answer while it is made. Two roads lead here from the worker: the
// flow tells what the model says as it says it, and the announcement brings the whole,
// or that there will be none. The flow may be missed, since the announcement makes up
// for it.
func (d *chatDesk) follow(ctx context.Context, x *exchange, c chat, a ask, result cache.Result) error {
	reader := d.flows.Follow(c.key) // before asking, so that nothing is missed
	defer reader.Close()
	ctx, cancel := context.WithCancel(ctx)
	pieces, made := make(chan cache.FlowPiece), make(chan answered, 1)
	var both sync.WaitGroup
	both.Go(func() { pump(ctx, reader, pieces) })
	both.Go(func() {
		got, err := d.await(ctx, a)
		made <- answered{got, err}
	})
	defer func() { cancel(); both.Wait() }()

	x.announce(missed(result.Why, filled{}), cache.Entry{})
	s := newChatStream(x, c, d.times.patience)
	beat := time.NewTicker(d.times.beat)
	defer beat.Stop()
	var late <-chan time.Time // when the flow has had its time to come to its end
	var whole cache.Entry
	for {
		var over bool
		var err error
		select {
		case p := <-pieces:
			over, err = s.tell(p)
		case m := <-made:
			if m.err != nil {
				return s.fail(d.unmade(x, causeOf(ctx, m.err))) //nolint:contextcheck // it asks whether the client is there
			}
			whole = m.got.entry
			if !s.running() {
				return d.close(s, whole)
			}
			late = time.After(d.times.settle)
		case <-late:
			return d.close(s, whole)
		case <-beat.C:
			err = s.beat()
		}
		switch {
		case errors.Is(err, errDiffers):
			return s.fail(d.differs())
		case over, err != nil: // of an error of writing nobody is there to be told
			return nil
		}
	}
}

// causeOf returns why a context has ended in place of that it has.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(cause, errStopping) {
		return cause
	}
	return err
}

// close ends a stream with what the entry has more than was said.
func (d *chatDesk) close(s *chatStream, e cache.Entry) error {
	a, err := cache.ReadAnswer(e.Body)
	if err != nil {
		return s.fail(problem(kindInternal, ""))
	}
	if err := s.settle(a); errors.Is(err, errDiffers) || errors.Is(err, errShort) {
		return s.fail(d.differs())
	}
	return nil
}

// differs is what is told in the midst of an answer that cannot be continued.
func (*chatDesk) differs() *Problem {
	p := problem(kindNotFilled, "the answer was interrupted, and the next attempt at it says something else: ask again")
	p.code = "answer_interrupted"
	return p
}

// pump passes on the pieces of a flow until the context ends or the flow is torn.
func pump(ctx context.Context, reader *cache.FlowReader, pieces chan<- cache.FlowPiece) {
	for {
		p, err := reader.Next(ctx)
		switch {
		case ctx.Err() != nil, errors.Is(err, cache.ErrFlowTorn):
			return
		case err != nil: // Redis is away for a moment
			select {
			case <-time.After(flowAgain):
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case pieces <- p:
		case <-ctx.Done():
			return
		}
	}
}

// flowAgain is how long after an error of Redis a flow is read again.
const flowAgain = 100 * time.Millisecond
