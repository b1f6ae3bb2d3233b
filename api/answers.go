package api

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
)

// answerDesk takes questions for the model and hands out answers. The scope of
// both is the caller: what somebody else asked is as if nobody had.
type answerDesk struct {
	server  *Server
	view    *view.View
	answers *cache.Answers
	hot     *hotAnswers
	limits  *turnedAway
	askers  askers
	waits   *misses // apart from those of views, which wait for milliseconds
	base    string  // the path of the questions; that of an answer has its key behind
}

// answerRoutes are the routes of answers of a model, where a view of them is served.
func (s *Server) answerRoutes() []route {
	for _, v := range s.views.All() {
		if !v.Model {
			continue
		}
		d := &answerDesk{server: s, view: v, answers: s.store.NewAnswers(v), hot: newHotAnswers(s.o.HotReads), limits: newTurnedAway(s.store),
			askers: newAskers(s.o.Auth.JWTSecret, s.o.EventsToken, s.o.AdminToken)}
		d.waits = newMisses(s.store, s.o.Waiters, s.publisher, usualChatTimes().flight, s.o.MaxWaiting)
		s.chat = newChatDesk(d)
		routes := s.chat.routes()
		if v.HTTP == nil {
			return routes
		}
		base, ok := strings.CutSuffix(v.HTTP.Path, "/{"+v.HTTP.Key+"}")
		if !ok || base == "" {
			return routes // a path without the key at its end has no place for questions
		}
		d.base = base
		return append(routes,
			route{method: http.MethodPost, path: base, access: named, near: true, limited: true, operation: "postAnswer", handle: d.post},
			route{method: http.MethodGet, path: v.HTTP.Path, access: named, near: true, limited: true, operation: "getAnswer", handle: d.get},
		)
	}
	return nil
}

// askSoon is how long a model may be busy for a worker to try again by itself.
const askSoon = 10 * time.Second

// post answers a question: at once where the answer is there, else after having
// asked for it and waited a little.
func (d *answerDesk) post(x *exchange) error {
	prefer := parsePrefer(x.request.Header["Prefer"])
	if err := d.limits.look(x); err != nil {
		return err
	}
	q, err := d.read(x)
	if err != nil {
		return d.limits.charge(x, err)
	}
	key := q.key
	// If-None-Match is about GET; for POST it would mean something else
	// (RFC 9110, 13.1.2).
	x.request.Header.Del("If-None-Match")
	x.Header().Set("Content-Location", d.base+"/"+key)
	result, err := d.limits.read(x, d.view, &q)
	if err != nil {
		return err
	}
	switch {
	case result.Status == cache.Hit:
		d.spared(&q, result.Entry)
		d.again(q, result)
		return x.serve(d.view, d.own(result.Entry), hitSource(result))
	case result.Status == cache.Stale && result.Why != cache.WhyStale:
		// Redis was restarted, and nobody has confirmed yet that nothing is missing.
		// A question has one answer, so asking again would only cost money.
		d.spared(&q, result.Entry)
		return x.serve(d.view, d.own(result.Entry), source{mark: markStale, detail: result.Why, at: result.Now})
	}
	event, err := d.event(&q)
	if err != nil {
		return err
	}
	got, err := d.await(x, q.scope, ask{view: d.view, key: key, event: event, wait: prefer.wait, spare: result.Status == cache.Stale}, prefer)
	if err == nil {
		return x.serve(d.view, d.own(got.entry), missed(result.Why, got))
	}
	if result.Status == cache.Stale && x.request.Context().Err() == nil {
		return x.serve(d.view, d.own(result.Entry), source{mark: markStale, fwd: cache.WhyStale, detail: "not-filled", at: result.Now})
	}
	soon := askSoon
	if q.nonce != "" {
		soon = 0 // it is asked for who waited alone, and nobody does any more
	}
	return d.unanswered(x, key, err, soon)
}

// read reads a question.
func (d *answerDesk) read(x *exchange) (question, error) {
	body, err := readQuestion(x)
	if err != nil {
		return question{}, err
	}
	return d.form(body, x.caller.user, hasDirective(x.request.Header["Cache-Control"], "no-store"))
}

// spared tells whoever counts that a question did not have to be asked.
func (d *answerDesk) spared(q *question, e cache.Entry) {
	a, _ := cache.ReadAnswer(e.Body) // of another release its tokens are not known
	d.sparedBy(q, e, &a)
}

// sparedBy counts by the model that was asked, as its calls are: an answer may name
// another.
func (d *answerDesk) sparedBy(q *question, e cache.Entry, a *cache.Answer) {
	if told := d.server.o.Spared; told != nil {
		told(e.Owner, q.Model, a.Usage)
	}
}

// await has an answer made, and waits for it unless the caller would rather not.
func (d *answerDesk) await(x *exchange, scope string, a ask, p prefer) (filled, error) {
	ctx := x.request.Context()
	if err := d.answers.Ask(ctx, scope, a.key); err != nil {
		return filled{}, err
	}
	if a.wait == 0 {
		a.wait = d.server.o.MissWait
	}
	if !p.async || p.wait > 0 {
		begun := time.Now()
		got, err := d.waits.await(ctx, a)
		x.fill += time.Since(begun)
		if !errors.Is(err, errBusy) {
			return got, err
		}
	}
	if err := d.waits.ask(ctx, a); err != nil {
		return filled{}, err
	}
	return filled{}, errNotFilled
}

// unanswered says that an answer is being made, or why none will be. A model that is busy
// no longer than soon is asked again by the workers.
func (d *answerDesk) unanswered(x *exchange, key string, err error, soon time.Duration) error {
	var failed *fillFailed
	switch {
	case errors.Is(err, errNotFilled):
		return d.pending(x, key)
	case errors.As(err, &failed):
		if reason, refused := strings.CutPrefix(failed.reason, cache.AnswerRefused); refused {
			x.markMiss()
			x.Header().Del("Content-Location")
			return refusal(reason)
		}
		if after, why, busy := cache.Busy(failed.reason); busy && after > soon {
			x.markMiss()
			x.Header().Del("Content-Location")
			return problem(kindBusy, why).later(after)
		}
		return d.pending(x, key) // the worker tries again
	default:
		return x.notFilled(err)
	}
}

// pending is 202: the answer is being made, and where it will be.
func (d *answerDesk) pending(x *exchange, key string) error {
	h := x.Header()
	h.Del("Content-Location")
	h.Set("Location", d.base+"/"+key)
	h.Set("Retry-After", "1")
	x.markMiss()
	return x.json(http.StatusAccepted, struct {
		Key    string `json:"key"`
		Status string `json:"status"`
	}{key, "pending"})
}

// markMiss says that the cache has no answer.
func (x *exchange) markMiss() {
	h := x.Header()
	h["Vary"] = x.server.fixed.vary
	h["X-Cache"] = x.server.fixed.marks(markMiss)
	h["Cache-Status"] = x.server.fixed.missed
}

// refusal is the problem of a question that the model does not answer. The
// worker's sentence tells status and code, and nothing of the question.
func refusal(reason string) *Problem {
	return &Problem{
		Type: "/docs#model-refused", Title: "The model gives no answer",
		Status: http.StatusBadGateway, Detail: reason,
	}
}
