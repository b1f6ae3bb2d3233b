package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mythiccache/api/lane"
	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
)

// Publisher writes events into the streams and returns the ids of their entries.
// On an error, the ids of what was written nevertheless stand where they belong,
// or ids is nil.
type Publisher interface {
	Append(ctx context.Context, events ...event.Event) (ids []string, err error)

	// AppendOnce appends no event again whose source and id it has appended before;
	// of such a one it returns the id of the entry that is there, and before.
	AppendOnce(ctx context.Context, events ...event.Event) (ids []string, before []bool, err error)
}

// Options is what a server is made of. Store, Waiters (somebody runs them), Views
// and Publisher are needed, and of Auth what its mode demands.
type Options struct {
	Store     *cache.Store
	Reader    *cache.Reader // of the store, which somebody runs; nil: one that reads as the store does
	Waiters   *cache.Waiters
	Views     *view.Set
	Publisher Publisher

	Auth        AuthOptions
	AdminToken  string // shows the reasons at /readyz; empty: to nobody
	EventsToken string // the app's own token; empty: nobody has it

	Origins  string // CORS_ORIGINS: whose pages may call; empty: only those of the same origin
	TLSCert  string // TLS_CERT and TLS_KEY: files in PEM; both, or neither for HTTP without TLS
	TLSKey   string
	MaxConns int // MAX_CONNS: connections at once; 0: any number

	Limits       string        // RATE_LIMITS: default=100/1m,/status=600/1m; empty: none
	MissWait     time.Duration // how long a miss may wait; 250 ms where 0
	MaxWaiting   int           // how many requests may wait at once; 1024 where 0
	MaxWatchers  int           // MAX_WATCHERS: how many may watch an entry at once; 10,000 where 0
	MaxPerCaller int           // MAX_WATCHERS_PER_CALLER: how many of one caller; 20 where 0
	StaleFor     time.Duration // STALE_FOR, for the document; the store decides

	Parts    func() map[string]error // readiness by part; nil: always ready
	Instance string                  // whose Report this process writes, so that it is not counted twice

	Provider string       // of the model, for the keys of answers
	Models   cache.Models // that may be asked for

	Spared   func(scope, model string, usage cache.Usage) // told of each question whose answer was there; nil: nobody is
	HotReads int                                          // of an answer near its end, after which it is made again before that; 0: none is

	Log      zerolog.Logger
	Registry *prometheus.Registry // served at /metrics; nil: a new one
	Version  string               // of the program
}

// Server answers HTTP requests from the cache.
type Server struct {
	store     *cache.Store
	reader    *cache.Reader
	exchanges sync.Pool // of *exchange
	views     *view.Set
	publisher Publisher
	auth      *authenticator
	limits    *limits
	misses    *misses
	refreshes *refreshes
	watches   *watches
	flows     *cache.Flows
	chat      *chatDesk // nil: no view is a model's
	metrics   *metrics
	fixed     fixed
	packer    *packer
	document  constant // OpenAPI
	page      *page    // that shows it
	handler   http.Handler
	lane      *lane.Lane // in front of net/http; nil: none
	timeouts  timeouts
	tls       *certificate // nil: none
	other     *boundRoute  // of requests that no route is for
	redisAway atomic.Bool
	log       zerolog.Logger
	o         Options
}

// New makes a server. Its errors name the setting that is wrong.
func New(o Options) (*Server, error) {
	if o.Store == nil || o.Waiters == nil || o.Views == nil || o.Publisher == nil {
		return nil, errors.New("api: store, waiters, views and publisher are needed")
	}
	if o.MissWait == 0 {
		o.MissWait = 250 * time.Millisecond
	}
	if o.MaxWaiting == 0 {
		o.MaxWaiting = 1024
	}
	if o.MissWait < 0 || o.MaxWaiting < 0 || o.MaxConns < 0 {
		return nil, fmt.Errorf("api: none of MissWait (%s), MaxWaiting (%d) and MaxConns (%d) may be negative", o.MissWait, o.MaxWaiting, o.MaxConns)
	}
	origins, err := parseOrigins(o.Origins)
	if err != nil {
		return nil, err
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Reader == nil {
		var err error
		if o.Reader, err = o.Store.NewReader(cache.ReaderOptions{}); err != nil {
			return nil, fmt.Errorf("api: %w", err)
		}
	}
	s := &Server{
		store: o.Store, reader: o.Reader, views: o.Views, publisher: o.Publisher, log: o.Log, o: o, timeouts: usualTimeouts(), packer: newPacker(),
		misses: newMisses(o.Store, o.Waiters, o.Publisher, o.MissWait, o.MaxWaiting), refreshes: newRefreshes(o.Publisher, o.Log),
	}
	s.flows = o.Store.NewFlows()
	s.fixed = newFixed(len(origins) > 0)
	if s.tls, err = newCertificate(o.TLSCert, o.TLSKey, o.Log); err != nil {
		return nil, err
	}
	if s.auth, err = newAuthenticator(o.Auth, o.EventsToken, o.AdminToken, o.Store, o.Log); err != nil {
		return nil, err
	}
	if s.auth.door != nil {
		s.auth.door.away = s.away
	}
	if s.watches, err = newWatches(s, o, o.Registry); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if s.limits, err = parseLimits(o.Limits); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(o.Registry, s.misses); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if s.metrics.auth, err = newAuthMetrics(o.Registry); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if s.auth.door != nil {
		s.auth.door.looked = s.metrics.auth.looked
	}
	if s.page, err = newPage(); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	routes := s.routes()
	document, err := s.describe(routes)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	s.document = newConstant("application/json", document)
	s.other = &boundRoute{route: route{path: "other", fail: failAsAsked}, metrics: s.metrics.of("other")}
	endpoints, err := s.bind(routes)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	routed, err := s.mux(endpoints)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	s.handler = crossOrigin(origins, routed)
	if err := s.newLane(); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return s, nil
}

// mux routes by path. Paths of views that exclude one another make net/http
// panic; here they are an error.
func (s *Server) mux(endpoints []*endpoint) (handler http.Handler, err error) {
	mux := http.NewServeMux()
	defer func() {
		if v := recover(); v != nil {
			handler, err = nil, fmt.Errorf("the views' paths cannot be served: %v", v)
		}
	}()
	for _, e := range endpoints {
		mux.Handle(e.path, s.endpointHandler(e))
	}
	nothing := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.serve(w, r, s.other, func(*exchange) error { return notFound() })
	})
	mux.Handle("/", nothing)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if unclean(r) {
			nothing.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}), nil
}

// Handler answers requests without a listener of its own.
func (s *Server) Handler() http.Handler { return s.handler }

// away notes that Redis does not answer; the change of state is what is logged.
func (s *Server) away(ctx context.Context, err error) {
	if ctx.Err() == nil && !s.redisAway.Swap(true) {
		s.log.Warn().Err(err).Msg("redis does not answer the api")
	}
}

// back notes that Redis answers.
func (s *Server) back() {
	if s.redisAway.Load() && s.redisAway.Swap(false) {
		s.misses.returned.note(time.Now())
		s.log.Info().Msg("redis answers the api again")
	}
}
