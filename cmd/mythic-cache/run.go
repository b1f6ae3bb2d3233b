package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/consumers"
	"mythiccache/producers"
	"mythiccache/producers/stream"
)

// The roles that a process may play.
const (
	roleRelay   = "relay"
	roleWorkers = "workers"
	roleAPI     = "api"
)

type runCommand struct {
	Roles   []string `default:"relay,workers,api" enum:"relay,workers,api" help:"What this process does: relay, workers, api."`
	Migrate bool     `help:"Bring schema and triggers up to date first."`
}

// worker is one running process: what its roles share.
type worker struct {
	*config
	roles    []string
	instance string // names the process in consumer groups and reports
	log      zerolog.Logger
	metrics  *prometheus.Registry
	redis    redisTarget
	keys     stream.Keys
	store    *cache.Store
	parts    parts

	// What this process reports of itself, as far as it has the part.
	relay     *producers.Relay
	staleness func() *cache.Quantiles
	ai        *consumers.Account

	producers, consumers, api *stage
	closers                   []func() error
}

// Run runs the roles until ctx ends, then stops them in order.
func (r runCommand) Run(ctx context.Context, p *program) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	if len(r.Roles) == 0 {
		return errors.New("--roles: names none of relay, workers, api")
	}
	w, err := newWorker(c, r.Roles, p.logger(c))
	if err != nil {
		return err
	}
	defer w.close()
	var listener net.Listener
	if w.plays(roleAPI) {
		if listener, err = new(net.ListenConfig).Listen(ctx, "tcp", c.HTTPAddr); err != nil {
			return fmt.Errorf("HTTP_ADDR: %w", err)
		}
	}
	schema := &schemaGate{worker: w, migrate: r.Migrate, open: make(chan struct{})}
	if w.plays(roleRelay) || w.plays(roleWorkers) {
		if err := c.needsDatabase(); err != nil {
			return err
		}
		w.parts.watch("schema", schema.state.Ready)
		w.producers.add("schema", schema.run)
	}
	if w.plays(roleRelay) {
		if err := w.addRelay(schema); err != nil {
			return err
		}
	}
	if w.plays(roleWorkers) {
		if err := w.addConsumers(ctx, schema); err != nil {
			return err
		}
	}
	if listener != nil {
		if err := w.addAPI(listener); err != nil { //nolint:contextcheck // handlers have their request's context
			return err
		}
	}
	if err := w.addReporter(); err != nil {
		return err
	}
	w.log.Info().Str("version", programVersion).Strs("roles", r.Roles).Str("instance", w.instance).Msg("starting")
	return runStages(ctx, w.log, w.producers, w.consumers, w.api)
}

// newWorker makes what the roles share. It needs neither server to be up.
func newWorker(c *config, roles []string, log zerolog.Logger) (*worker, error) {
	target, err := parseRedisURL(c.RedisURL)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	w := &worker{
		config:    c,
		roles:     roles,
		instance:  fmt.Sprintf("%s-%s", host, strings.ToLower(rand.Text()[:8])),
		log:       log,
		metrics:   prometheus.NewRegistry(),
		redis:     target,
		keys:      stream.NewKeys(c.Prefix),
		producers: &stage{name: "producers", patience: 5 * time.Second},
		consumers: &stage{name: "consumers", patience: 15 * time.Second},
		api:       &stage{name: "api", patience: 8 * time.Second},
	}
	redis.SetLogger(redisLog{log})
	w.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	w.store, err = cache.New(target.dial, cache.Options{
		Prefix: c.Prefix, StaleFor: time.Duration(c.StaleFor), AIKeys: c.aiKeys, Log: log, Metrics: w.metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	w.closers = append(w.closers, w.store.Close)
	if w.ai, err = consumers.NewAccount(consumers.AccountOptions{
		Prices: c.prices, Models: append(c.budgets.Names(), c.defaultModel()), Metrics: w.metrics,
	}); err != nil {
		return nil, err
	}
	w.parts.watch("redis", w.redisReady)
	return w, nil
}

func (w *worker) plays(role string) bool { return slices.Contains(w.roles, role) }

// redisReady asks Redis itself; whoever wants to know waits at most a second.
func (w *worker) redisReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return w.store.Ping(ctx)
}

// close lets go of what the roles shared, the last made first.
func (w *worker) close() {
	for _, c := range slices.Backward(w.closers) {
		if err := c(); err != nil && !errors.Is(err, redis.ErrClosed) {
			w.log.Warn().Err(err).Msg("close")
		}
	}
}

// redisLog passes on what go-redis says of connections; it repeats itself while
// Redis is away, so it is kept at debug level: the parts say it once.
type redisLog struct{ log zerolog.Logger }

// Printf implements go-redis's logging interface.
func (l redisLog) Printf(_ context.Context, format string, args ...any) {
	l.log.Debug().Str("said", fmt.Sprintf(format, args...)).Msg("redis client")
}
