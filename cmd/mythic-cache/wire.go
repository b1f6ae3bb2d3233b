package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"mythiccache/api"
	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/consumers"
	"mythiccache/producers"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// The consumer groups.
const (
	groupInvalidate = "invalidate"
	groupPrecompute = "precompute"
	groupWarm       = "warm"
)

// How much a process takes on at once. Loads share the pool's connections; calls of a
// model wait for seconds each. A load that does not end holds its batch, so there are
// places for more batches than there are loads, which the connections bound.
const (
	connections   = 16
	runsInFlight  = 32
	asksInFlight  = 64
	asksAtRedis   = 16 // of those, of which many begin and end at once: who invalidates would wait behind them
	tellsInFlight = 16
	loadBatch     = 64
	fillBatches   = 2 * connections
	tableBatches  = connections
	routerPatient = 12 * time.Second
)

// How long a handler may take before it is given up. A batch whose loads all come to
// no end takes consumers.Loader.BatchDeadline, a call of a model a minute and a half.
// A group is stuck, so says /readyz, when it stands still for longer than either.
const (
	batchFor = time.Minute
	askFor   = 2 * time.Minute
)

// groups returns the topics of each group. Nobody reads for a model that no view asks.
func groups(views *view.Set, templates *view.Templates) map[string][]string {
	all := map[string][]string{
		groupInvalidate: append(slices.Concat(views.TableTopics(), views.EventTopics()), event.TopicSession),
		groupPrecompute: append(views.PrecomputeTopics(), event.TopicRun, event.TopicFill),
	}
	if answersView(views) != nil {
		all[groupWarm] = append(templates.Topics(), event.TopicAI)
		all[groupInvalidate] = append(all[groupInvalidate], event.TopicAI)
	}
	for group, topics := range all {
		slices.Sort(topics)
		all[group] = slices.Compact(topics)
	}
	return all
}

// fences does for the relay what the store does with views.
type fences struct {
	store *cache.Store
	views []*view.View
}

// FenceAll implements producers.Fences.
func (f fences) FenceAll(ctx context.Context, at version.Version) error {
	return f.store.FenceAll(ctx, f.views, at)
}

// FenceViews implements producers.Fences.
func (f fences) FenceViews(ctx context.Context, names []string, at version.Version) error {
	named := slices.DeleteFunc(slices.Clone(f.views), func(v *view.View) bool { return !slices.Contains(names, v.Name) })
	return f.store.FenceAll(ctx, named, at)
}

// EnsureViews implements producers.Fences.
func (f fences) EnsureViews(ctx context.Context, at version.Version) error {
	return f.store.EnsureViews(ctx, f.views, at)
}

// addRelay adds the relay, which waits for the schema.
func (w *worker) addRelay(schema *schemaGate) error {
	relay, err := producers.NewRelay(producers.RelayOptions{
		URL: w.DatabaseURL, ListenURL: w.DatabaseListenURL, Dial: w.redis.dial, Keys: w.keys, Views: w.views,
		Fences: fences{w.store, w.views.All()}, Retention: time.Duration(w.OutboxRetention), OutboxWarn: int64(w.OutboxWarnSize), Log: w.log, Metrics: w.metrics,
	})
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	w.relay = relay
	w.parts.watch("relay", relay.Ready)
	w.producers.add("relay", schema.after(relay.Run))
	return nil
}

// addConsumers adds the groups and what keeps the streams in order.
func (w *worker) addConsumers(ctx context.Context, schema *schemaGate) error {
	pool, err := consumers.NewPool(ctx, w.DatabaseURL, connections)
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", withoutURL(err))
	}
	w.closers = append(w.closers, func() error { pool.Close(); return nil })
	loader, err := consumers.NewLoader(pool, consumers.LoaderOptions{Log: w.log, Metrics: w.metrics})
	if err != nil {
		return fmt.Errorf("loader: %w", err)
	}
	filler, err := consumers.NewFiller(w.store, loader, consumers.FillerOptions{Log: w.log, Metrics: w.metrics})
	if err != nil {
		return fmt.Errorf("filler: %w", err)
	}
	all := groups(w.views, w.templates)
	invalidator, err := consumers.NewInvalidator(w.store, w.views, consumers.InvalidatorOptions{Log: w.log, Metrics: w.metrics})
	if err != nil {
		return fmt.Errorf("invalidator: %w", err)
	}
	w.staleness = invalidator.Staleness
	// A backlog of table events must not keep a revoked token waiting.
	sessions := consumers.NewSessions(w.store, consumers.SessionsOptions{TTL: time.Duration(w.SessionTTL), Rest: invalidator.Handle, Log: w.log})
	if err := w.addGroup(schema, groupInvalidate, []string{event.TopicSession}, sessions.Handle, stream.ConsumerOptions{}); err != nil {
		return err
	}
	sweeper, err := consumers.NewSweeper(w.store, consumers.SweeperOptions{Log: w.log, Metrics: w.metrics})
	if err != nil {
		return fmt.Errorf("sweeper: %w", err)
	}
	w.consumers.add("revocations", sweeper.Run)
	changes := slices.DeleteFunc(slices.Clone(all[groupInvalidate]), func(topic string) bool {
		return topic == event.TopicSession || topic == event.TopicAI
	})
	if err := w.addGroup(schema, groupInvalidate, changes, invalidator.Handle, stream.ConsumerOptions{}); err != nil {
		return err
	}
	tables := slices.DeleteFunc(slices.Clone(all[groupPrecompute]), func(topic string) bool {
		return topic == event.TopicRun || topic == event.TopicFill
	})
	if len(tables) > 0 {
		precomputer := consumers.NewPrecomputer(w.store, filler, w.views, consumers.PrecomputerOptions{Log: w.log})
		if err := w.addGroup(schema, groupPrecompute, tables, precomputer.Handle, stream.ConsumerOptions{
			BatchSize: loadBatch, Concurrency: tableBatches, Timeout: batchFor,
		}); err != nil {
			return err
		}
	}
	fills := consumers.NewFills(w.store, filler, w.views, consumers.FillsOptions{Log: w.log})
	if err := w.addGroup(schema, groupPrecompute, []string{event.TopicFill}, fills.Handle, stream.ConsumerOptions{
		BatchSize: loadBatch, Concurrency: fillBatches, Timeout: batchFor,
	}); err != nil {
		return err
	}
	runs := consumers.NewRuns(pool, filler, w.views, consumers.RunsOptions{Log: w.log})
	if err := w.addRouted(schema, groupPrecompute, event.TopicRun, runsInFlight, 0, runs.Handle); err != nil {
		return err
	}
	if err := w.addWarmer(schema, loader); err != nil {
		return err
	}
	if err := w.addAuditor(schema, loader); err != nil {
		return err
	}
	return w.addUpkeep(schema, all)
}

// addGroup adds one batch handler of a group.
func (w *worker) addGroup(schema *schemaGate, group string, topics []string, h stream.BatchHandler, o stream.ConsumerOptions) error {
	o.Group, o.Topics, o.Log, o.Metrics = group, topics, w.log, w.metrics
	o.Name = w.instance
	consumer, err := stream.NewConsumer(w.redis.dial, w.keys, h, o)
	if err != nil {
		return fmt.Errorf("group %s: %w", group, err)
	}
	name := fmt.Sprintf("%s:%s", group, topics[0])
	w.parts.watch(name, consumer.Ready)
	w.consumers.add(name, schema.after(consumer.Run))
	return nil
}

// addRouted adds one handler of the app's events, which run through watermill's
// Router. Without a timeout it has the stream's.
func (w *worker) addRouted(
	schema *schemaGate, group, topic string, inFlight int, timeout time.Duration, handle func(*message.Message) error,
) error {
	subscriber, err := stream.NewSubscriber(w.redis.dial, w.keys, stream.SubscriberOptions{
		Group: group, Name: w.instance, InFlight: inFlight, Timeout: timeout, Log: w.log, Metrics: w.metrics,
	})
	if err != nil {
		return fmt.Errorf("group %s: %w", group, err)
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: routerPatient}, stream.ZerologAdapter(w.log))
	if err != nil {
		return fmt.Errorf("router of %s: %w", topic, err)
	}
	router.AddMiddleware(stream.RecordFailure)
	name := fmt.Sprintf("%s:%s", group, topic)
	router.AddConsumerHandler(name, topic, subscriber, handle)
	w.parts.watch(name, subscriber.Ready)
	w.consumers.add(name, schema.after(func(ctx context.Context) error {
		return errors.Join(router.Run(ctx), subscriber.Close())
	}))
	return nil
}

// model returns the language model that is configured, or the built-in one.
func (c *config) model() (consumers.Model, error) {
	if c.LLMBaseURL == "" {
		return consumers.NewDemoModel(), nil
	}
	model, err := consumers.NewOpenAI(c.LLMBaseURL, c.LLMAPIKey, nil)
	if err != nil {
		return nil, fmt.Errorf("LLM_BASE_URL: %w", err)
	}
	return model, nil
}

// defaultModel returns the model of a request that names none; "" where each has
// to name one.
func (c *config) defaultModel() string {
	if c.LLMBaseURL == "" && c.LLMModel == "" {
		return consumers.DemoModelName
	}
	return c.LLMModel
}

// models returns the models that may be asked for. Its errors name the setting.
func (c *config) models() (cache.Models, error) {
	return cache.ParseModels(c.defaultModel(), c.AIModels, c.AISharedModels)
}

// addWarmer adds the group that asks the model, where a view wants it.
func (w *worker) addWarmer(schema *schemaGate, loader *consumers.Loader) error {
	answers := answersView(w.views)
	if answers == nil {
		return nil
	}
	model, err := w.model()
	if err != nil {
		return err
	}
	models, err := w.models()
	if err != nil {
		return err
	}
	store, err := w.store.Apart(w.redis.narrow(asksAtRedis).dial)
	if err != nil {
		return err
	}
	w.closers = append(w.closers, store.Close)
	counts, err := w.addTemplates(schema, loader, store, consumers.TemplatesOptions{View: answers, Models: models, Provider: model.Name()})
	if err != nil {
		return err
	}
	warmer, err := consumers.NewWarmer(store, consumers.WarmerOptions{
		View: answers, Model: model, Models: models, Templates: counts,
		KeepTruncated: w.AICacheTruncated, Budgets: w.budgets, Account: w.ai, Metrics: w.metrics, Log: w.log,
	})
	if err != nil {
		return err
	}
	if err := w.addRouted(schema, groupWarm, event.TopicAI, asksInFlight, askFor, warmer.Ask); err != nil {
		return err
	}
	// What is to be forgotten does not wait for a model.
	return w.addRouted(schema, groupInvalidate, event.TopicAI, tellsInFlight, 0, warmer.Tell)
}

// answersView returns the view that a model answers, or nil.
func answersView(views *view.Set) *view.View {
	for _, v := range views.All() {
		if v.Model {
			return v
		}
	}
	return nil
}

// addUpkeep adds what keeps streams short and says when entries may be trusted
// again after Redis was restarted.
func (w *worker) addUpkeep(schema *schemaGate, all map[string][]string) error {
	trimmer, err := stream.NewTrimmer(w.redis.dial, w.keys, stream.TrimmerOptions{Groups: all, Log: w.log, Metrics: w.metrics})
	if err != nil {
		return fmt.Errorf("trimmer: %w", err)
	}
	w.consumers.add("trimmer", schema.after(trimmer.Run))
	// Whoever drops a view's entries must have caught up before they are trusted: one
	// group drops them all.
	confirmer, err := consumers.NewConfirmer(w.store, w.views.All(), consumers.ConfirmerOptions{
		Keys: w.keys, Groups: map[string][]string{groupInvalidate: all[groupInvalidate]}, Relay: w.relayRunID, Log: w.log,
	})
	if err != nil {
		return fmt.Errorf("confirmer: %w", err)
	}
	w.consumers.add("confirmer", schema.after(confirmer.Run))
	return nil
}

// relayRunID returns the run_id of the Redis in which the leading relay, in
// whichever process, last found its position.
func (w *worker) relayRunID(ctx context.Context) (string, error) {
	runID, err := w.store.Client().HGet(ctx, w.keys.Position(), producers.PositionRunID).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	return runID, err
}

// addAPI adds the HTTP server on a listener.
func (w *worker) addAPI(listener net.Listener) error {
	publisher, err := stream.NewPublisher(w.redis.dial, w.keys, stream.PublisherOptions{Log: w.log, Metrics: w.metrics})
	if err != nil {
		return fmt.Errorf("publisher: %w", err)
	}
	reader, err := w.addReader()
	if err != nil {
		return err
	}
	w.closers = append(w.closers, publisher.Close)
	model, err := w.model()
	if err != nil {
		return err
	}
	models, err := w.models()
	if err != nil {
		return err
	}
	waiters := w.store.NewWaiters()
	server, err := api.New(api.Options{
		Store: w.store, Reader: reader, Waiters: waiters, Views: w.views, Publisher: publisher,
		Auth: api.AuthOptions{
			Mode: w.AuthMode, JWTSecret: w.AuthJWTSecret, JWKS: w.AuthJWKS, Issuer: w.AuthIssuer, Audience: w.AuthAudience,
			Leeway: time.Duration(w.AuthLeeway), SessionTTL: time.Duration(w.SessionTTL),
		},
		Origins: w.CORSOrigins, TLSCert: w.TLSCert, TLSKey: w.TLSKey, MaxConns: w.MaxConns,
		MaxWatchers: w.MaxWatchers, MaxPerCaller: w.WatchersPerCaller,
		AdminToken: w.AdminToken, EventsToken: w.EventsToken, Limits: w.RateLimits, StaleFor: time.Duration(w.StaleFor),
		Parts: w.parts.states, Instance: w.instance, Provider: model.Name(), Models: models, Spared: w.ai.HitOf, HotReads: w.AIRefreshReads,
		Log: w.log, Registry: w.metrics, Version: programVersion,
	})
	if err != nil {
		return err
	}
	if w.AuthMode == api.AuthJWT && len(w.AuthJWTSecret) < api.MinSecret && (w.AuthJWTSecret != "" || w.AuthJWKS == "") {
		w.log.Warn().Int("bytes", len(w.AuthJWTSecret)).Int("needed", api.MinSecret).Msg("AUTH_JWT_SECRET is too short to be safe; without one no token is accepted")
	}
	w.parts.watch("announcements", waiters.Ready)
	w.api.add("announcements", waiters.Run)
	w.parts.watch("keys of tokens", server.AuthReady)
	w.api.add("auth", server.RunAuth)
	w.api.add("flows", server.RunFlows)
	w.api.add("api", func(ctx context.Context) error {
		w.log.Info().Str("addr", listener.Addr().String()).Msg("api listens")
		return server.Serve(ctx, listener)
	})
	return nil
}

// addReporter adds what tells the other processes about this one.
func (w *worker) addReporter() error {
	o := consumers.ReporterOptions{Instance: w.instance, Roles: w.roles, Keys: w.keys, Staleness: w.staleness, Log: w.log, Metrics: w.metrics}
	if w.plays(roleWorkers) {
		o.Reads = groups(w.views, w.templates)
		var topics []string
		for _, ofGroup := range o.Reads {
			topics = append(topics, ofGroup...)
		}
		slices.Sort(topics)
		o.Topics = slices.Compact(topics)
	}
	if w.relay != nil {
		o.Relay = func() *cache.RelayReport {
			s := w.relay.State()
			return &cache.RelayReport{Leader: s.Leader, Position: s.Position, Backlog: s.Backlog, OutboxBytes: s.OutboxBytes, LastDrain: s.LastDrain}
		}
	}
	if answersView(w.views) != nil && (w.plays(roleWorkers) || w.plays(roleAPI)) {
		o.AI = func() *cache.AIReport { r := w.ai.Report(); return &r }
		w.consumers.add("costs", func(ctx context.Context) error { return w.ai.Run(ctx, w.store) })
	}
	reporter, err := consumers.NewReporter(w.store, o)
	if err != nil {
		return fmt.Errorf("reporter: %w", err)
	}
	for group := range o.Reads {
		w.parts.watch("group "+group, func() error { return reporter.Ready(group) })
	}
	w.consumers.add("reporter", reporter.Run)
	return nil
}
