package api

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/api/lane"
)

// statusClientGone is what the metrics call a request whose client hung up (as
// nginx does). It never goes out.
const statusClientGone = 499

// serve is the frame around every handler: it finds out who asks, turns errors
// into problems, keeps panics in, and measures.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, route *boundRoute, handle func(*exchange) error) {
	x := s.exchange()
	x.ResponseWriter, x.request, x.route, x.started = w, r, route, time.Now()
	x.atOnce = lane.In(r.Context())
	w.Header()["X-Content-Type-Options"] = s.fixed.nosniff
	defer s.finish(x)
	if x.atOnce && !route.near {
		return
	}
	var err error
	if x.caller, err = s.auth.identify(r, route.access); err == nil {
		err = handle(x)
	} else {
		s.metrics.auth.notLetIn(err)
	}
	if err != nil {
		x.fail(err)
	}
}

// fail answers with a problem.
func (x *exchange) fail(err error) {
	var p *Problem
	isProblem := errors.As(err, &p)
	switch {
	case errors.Is(err, errNotAtOnce):
		return
	case x.request.Context().Err() != nil && (errors.Is(err, context.Canceled) || isProblem && p.Type == kindCacheAway.uri()):
		if x.status == 0 {
			x.status = statusClientGone
		}
		// By returning, net/http would end the answer as if it were whole: 200 and nothing
		// more, which a client that has only closed its own side would read.
		panic(http.ErrAbortHandler)
	case isProblem:
	default:
		x.server.log.Error().Err(err).Str("route", x.route.path).Msg("request failed")
		p = problem(kindInternal, "")
	}
	if x.status == 0 {
		x.tell(p)
	}
}

// tell answers with a problem in the form that the route has for them.
func (x *exchange) tell(p *Problem) {
	if x.route.fail != nil {
		x.route.fail(x, p)
		return
	}
	p.write(x)
}

// finish ends an exchange, the panicking one too. An answer that cannot be told whole
// is broken off.
func (s *Server) finish(x *exchange) {
	v := recover()                      //nolint:revive // serve defers this very function
	broken := v == http.ErrAbortHandler //nolint:errorlint // the value that was panicked with, not an error that somebody wrapped
	if v != nil && !broken {
		s.log.Error().Interface("panic", v).Bytes("stack", debug.Stack()).Str("route", x.route.path).Msg("handler panicked")
		if broken = x.status != 0; !broken {
			x.tell(problem(kindInternal, ""))
		}
	}
	if x.atOnce && x.status == 0 && !broken { // as if it had not been asked: it will be, by net/http
		s.exchanges.Put(x)
		return
	}
	took := time.Since(x.started)
	x.route.metrics.observe(x.status, took)
	if e := s.log.Debug(); e.Enabled() {
		e.Str("method", clipMethod(x.request.Method)).Str("route", x.route.path).
			Int("status", x.status).Dur("took", took).Dict("of", zerolog.Dict().
			Dur("redis", x.redis).Dur("fill", x.fill)).Msg("request")
	}
	s.exchanges.Put(x)
	if broken {
		panic(http.ErrAbortHandler)
	}
}

// exchange returns an empty one.
func (s *Server) exchange() *exchange {
	x, used := s.exchanges.Get().(*exchange)
	if !used {
		return &exchange{server: s}
	}
	*x = exchange{server: s, values: headerValues{text: x.values.text[:0]}}
	return x
}

// clipMethod bounds what the client made up.
func clipMethod(method string) string {
	if len(method) > 16 {
		return method[:16]
	}
	return method
}
