package api

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"mythiccache/cache/view"
)

// route is one method of one path.
type route struct {
	method    string // GET answers HEAD too
	path      string // a net/http pattern without method, such as /status/{run_id}
	access    access
	near      bool // can be answered in the lane, from memory or by Redis at once; where it cannot, handle returns errNotAtOnce
	limited   bool // counted against RATE_LIMITS, in the round trip of x.read
	operation string
	view      *view.View // of a route that comes from the views file
	handle    func(x *exchange) error
	fail      func(x *exchange, p *Problem) // tells of a problem in another form than ours; nil: in ours
}

// access says who may call a route.
type access int

const (
	open   access = iota // anybody; the caller is not looked at
	anyone               // anybody; who shows a token must show a valid one
	named                // a verified user
	app                  // the app itself, by EVENTS_TOKEN
)

// routes lists everything that the server answers. The view of AI answers is not
// among the view routes: its routes can do more.
func (s *Server) routes() []route {
	return slices.Concat(
		s.viewRoutes(),
		s.answerRoutes(),
		s.eventRoutes(),
		s.operatorRoutes(),
		s.documentRoutes(),
	)
}

// endpoint is a path with the routes of its methods.
type endpoint struct {
	path    string
	methods map[string]*boundRoute
	allow   string
}

// boundRoute is a route with what is decided once for all of its requests.
type boundRoute struct {
	route
	rule    *rule // nil: not limited
	metrics routeMetrics
}

// bind groups routes by path.
func (s *Server) bind(routes []route) ([]*endpoint, error) {
	var endpoints []*endpoint
	byPath := map[string]*endpoint{}
	for _, r := range routes {
		e := byPath[r.path]
		if e == nil {
			e = &endpoint{path: r.path, methods: map[string]*boundRoute{}}
			byPath[r.path] = e
			endpoints = append(endpoints, e)
		}
		if _, twice := e.methods[r.method]; twice {
			return nil, fmt.Errorf("%s %s is served twice", r.method, r.path)
		}
		b := &boundRoute{route: r, metrics: s.metrics.of(r.path)}
		if r.limited {
			b.rule = s.limits.of(r.path)
		}
		e.methods[r.method] = b
		if r.method == http.MethodGet {
			e.methods[http.MethodHead] = b
		}
	}
	for _, e := range endpoints {
		var names []string
		for name := range e.methods {
			names = append(names, name)
		}
		names = append(names, http.MethodOptions)
		slices.Sort(names)
		e.allow = strings.Join(names, ", ")
	}
	return endpoints, s.everyLimitCounts(routes)
}

// everyLimitCounts refuses a rule of RATE_LIMITS that no counted path falls under:
// who wrote it believes that something is limited.
func (s *Server) everyLimitCounts(routes []route) error {
	used := map[string]bool{}
	var counted []string
	for _, r := range routes {
		if !r.limited {
			continue
		}
		counted = append(counted, r.path)
		if rule := s.limits.of(r.path); rule != nil {
			used[rule.name] = true
		}
	}
	for _, rule := range s.limits.rules {
		if !used[rule.name] {
			slices.Sort(counted)
			return fmt.Errorf("RATE_LIMITS: %s limits nothing; what is counted are requests to %s", rule.name, strings.Join(slices.Compact(counted), ", "))
		}
	}
	return nil
}

// endpointHandler answers with the route of the request's method; OPTIONS with the
// methods that there are.
func (s *Server) endpointHandler(e *endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bound, ok := e.methods[r.Method]
		switch {
		case ok:
			s.serve(w, r, bound, bound.handle)
		case r.Method == http.MethodOptions:
			w.Header().Set("Allow", e.allow)
			s.serve(w, r, s.other, func(x *exchange) error {
				x.WriteHeader(http.StatusNoContent)
				return nil
			})
		default:
			w.Header().Set("Allow", e.allow)
			s.serve(w, r, s.other, func(*exchange) error {
				return problem(kindMethod, "this path answers "+e.allow)
			})
		}
	})
}

// unclean reports a path that net/http's mux would answer with a redirect of its
// own, which is no problem document and which no client of ours needs.
func unclean(r *http.Request) bool {
	p := r.URL.EscapedPath()
	if p == "" || p[0] != '/' {
		return true
	}
	clean := path.Clean(p)
	if p[len(p)-1] == '/' && clean != "/" {
		return len(clean)+1 != len(p)
	}
	return len(clean) != len(p)
}
