package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"mythiccache/cache"
)

// chatDesk answers as OpenAI's API does, from the same cache as the answers' own form.
//
// However long an answer takes, its request waits for it, among a bounded number that
// do. That one hangs up changes nothing for the others, and ends no call of the model.
type chatDesk struct {
	*answerDesk
	flows *cache.Flows
	times chatTimes
}

// chatTimes are how long things take.
type chatTimes struct {
	wait     time.Duration // for an answer, at most
	grace    time.Duration // for another attempt, after one that failed
	beat     time.Duration // between two signs of life to a stream that has nothing to say
	patience time.Duration // for a client that does not read
	leave    time.Duration // for an answer, when the server stops
	settle   time.Duration // for the rest of a flow, when its answer is there
	flight   time.Duration // how long requests share one event, twice
}

func usualChatTimes() chatTimes {
	return chatTimes{
		wait: 2 * time.Minute, grace: 15 * time.Second, beat: 15 * time.Second, patience: 10 * time.Second,
		leave: 5 * time.Second, settle: 200 * time.Millisecond, flight: 5 * time.Second,
	}
}

func newChatDesk(d *answerDesk) *chatDesk {
	return &chatDesk{answerDesk: d, flows: d.server.flows, times: usualChatTimes()}
}

// routes are those of OpenAI's API that are served.
func (d *chatDesk) routes() []route {
	return []route{
		{method: http.MethodPost, path: "/v1/chat/completions", access: anyone, near: true, limited: true, operation: "postChatCompletion", handle: d.post, fail: failAsOpenAI},
		{method: http.MethodGet, path: "/v1/models", access: anyone, operation: "getModels", handle: d.getModels, fail: failAsOpenAI},
		{method: http.MethodGet, path: "/v1/models/{model}", access: anyone, operation: "getModel", handle: d.getModel, fail: failAsOpenAI},
	}
}

// post answers a request for a completion.
func (d *chatDesk) post(x *exchange) error {
	if err := d.limits.look(x); err != nil {
		return err
	}
	c, err := d.read(x)
	if err != nil {
		return d.limits.charge(x, err)
	}
	result, err := d.limits.read(x, d.view, &c.question)
	if err != nil {
		return err
	}
	switch {
	case result.Status == cache.Hit:
		d.again(c.question, result)
		return d.spare(x, c, result.Entry, source{mark: markHit, at: result.Now})
	case result.Status == cache.Stale && result.Why != cache.WhyStale:
		// As in answerDesk.post.
		return d.spare(x, c, result.Entry, source{mark: markStale, detail: result.Why, at: result.Now})
	}
	event, err := d.event(&c.question)
	if err != nil {
		return err
	}
	ctx, cancel := d.bound(x)
	defer cancel()
	a := ask{view: d.view, key: c.key, event: event, wait: d.times.wait, spare: result.Status == cache.Stale}
	if c.stream {
		err = d.follow(ctx, x, c, a, result)
	} else {
		err = d.whole(ctx, x, c, a, result)
	}
	if err == nil || x.status != 0 {
		return err
	}
	if result.Status == cache.Stale && x.request.Context().Err() == nil {
		return d.replay(x, c, result.Entry, source{mark: markStale, fwd: cache.WhyStale, detail: "not-filled", at: result.Now})
	}
	x.markMiss()
	return err
}

// errStopping ends what waits when the server stops.
var errStopping = errors.New("the server stops")

// bound is the context of one request that waits. It moves the deadlines of the
// connection, which are for answers that come at once.
func (d *chatDesk) bound(x *exchange) (context.Context, context.CancelFunc) {
	control := http.NewResponseController(x)
	most := time.Now().Add(d.times.wait + d.times.grace + d.times.patience)
	_ = control.SetReadDeadline(most)  // where they cannot be moved,
	_ = control.SetWriteDeadline(most) // the wait is as long as it can be
	ctx, cancel := context.WithCancelCause(x.request.Context())
	go func() {
		select {
		case <-d.server.watches.stopping:
		case <-ctx.Done():
			return
		}
		timer := time.NewTimer(d.times.leave)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel(errStopping)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// whole waits for an answer and sends it.
func (d *chatDesk) whole(ctx context.Context, x *exchange, c chat, a ask, result cache.Result) error {
	begun := time.Now()
	got, err := d.await(ctx, a)
	x.fill += time.Since(begun)
	if err != nil {
		return d.unmade(x, causeOf(ctx, err)) //nolint:contextcheck // it asks whether the client is there
	}
	return d.replay(x, c, got.entry, missed(result.Why, got))
}

// await has an answer made and waits for it. A model that fails is tried again by the
// workers, for which there is a little time; once one has begun to, as much as is left.
func (d *chatDesk) await(ctx context.Context, a ask) (filled, error) {
	most := time.Now().Add(a.wait)
	got, err := d.waits.await(ctx, a)
	var failed *fillFailed
	if !errors.As(err, &failed) || cutRefused(failed.reason) != "" {
		return got, err
	}
	if _, _, busy := cache.Busy(failed.reason); busy {
		return got, err
	}
	for {
		again, err := d.listen(ctx, a.key, d.times.grace)
		if !errors.Is(err, errNotFilled) {
			return again, err
		}
		if time.Now().After(most) || !d.beingMade(ctx, a.key) {
			return again, failed
		}
	}
}

// beingMade reports whether a worker holds the lease of an answer.
func (d *chatDesk) beingMade(ctx context.Context, key string) bool {
	found, err := d.server.store.Inspect(ctx, d.view, key)
	return err == nil && found.Holder != "" && found.Deadline.After(found.Now)
}

// RunFlows hears of what models say while they answer, until the context ends. Without
// it streams tell an answer once it is whole.
func (s *Server) RunFlows(ctx context.Context) error { return s.flows.Run(ctx) }
