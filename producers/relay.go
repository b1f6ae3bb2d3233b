package producers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/producers/stream"
)

// Fences is what the relay needs of the store.
type Fences interface {
	// FenceAll makes every entry of every view that has seen less than at a miss.
	FenceAll(ctx context.Context, at version.Version) error
	// FenceViews does so for the views of those names.
	FenceViews(ctx context.Context, names []string, at version.Version) error
	// EnsureViews makes the view keys that are absent.
	EnsureViews(ctx context.Context, at version.Version) error
}

// RelayOptions says what a relay connects.
type RelayOptions struct {
	URL        string      // PostgreSQL, the primary
	ListenURL  string      // the same without a transaction pooler between; URL where empty. The relay uses this one alone
	Dial       stream.Dial // a Redis client of the relay's own, whose calls end with their context
	Keys       stream.Keys
	Views      *view.Set
	Fences     Fences
	OutboxWarn int64                 // bytes of the outbox from which on it is told that it grows; 0: never
	Retention  time.Duration         // how long sent rows are kept, at least; 0: the longest TTL and a quarter of an hour
	Log        zerolog.Logger        //
	Metrics    prometheus.Registerer // nil: none
}

// RelayState is what a relay knows of itself.
type RelayState struct {
	Leader    bool
	Position  string    // as it stands in Redis
	Backlog   int64     // rows known to wait; counted up to 100,000
	LastDrain time.Time // when the outbox was last read to its end

	OutboxBytes int64 // on disk, with what was sent and is kept
	Drift       Drift // as a leader last found it
}

// Pauses of the relay.
const (
	heartbeatEvery  = time.Second
	sessionTimeout  = 3 * time.Second // of the leader's session: a stopped process loses it
	standbyEvery    = 500 * time.Millisecond
	fallbackPoll    = 5 * time.Second
	retryFrom       = 20 * time.Millisecond
	retryMost       = time.Second
	defaultGrace    = 15 * time.Minute
	statementBound  = 30 * time.Second
	answerBound     = 10 * time.Second       // of a statement that takes milliseconds
	examineWait     = 100 * time.Millisecond // for a lock: DDL may hold one for long
	truncateWait    = 50 * time.Millisecond
	shutdownBound   = 5 * time.Second
	leaderLock      = 0x6d7974686963_01
	applicationName = "mythic-cache relay"
)

// Relay reads the outbox and appends to the streams, as long as it leads.
type Relay struct {
	o       RelayOptions
	metrics *relayMetrics

	mu    sync.Mutex
	state RelayState
	why   error // nothing is being sent because of it

	// Run's alone.
	led      uint64          // the epoch under which it last led
	watch    *Watch          // of the views' tables
	told     map[string]bool // what it has told of drift
	patience *patience       // with Redis
	bounds   answerBounds    // of PostgreSQL
	large    bool            // it has told that the outbox is
}

// NewRelay checks the options. Neither server needs to be up.
func NewRelay(o RelayOptions) (*Relay, error) {
	if o.ListenURL == "" {
		o.ListenURL = o.URL
	}
	if _, err := pgx.ParseConfig(o.ListenURL); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	if o.Dial == nil || o.Views == nil || o.Fences == nil {
		return nil, errors.New("relay: Dial, Views and Fences are needed")
	}
	longest := time.Duration(0)
	for _, v := range o.Views.All() {
		longest = max(longest, v.TTL)
	}
	if o.Retention == 0 {
		o.Retention = longest + defaultGrace
	}
	if o.Retention < longest {
		return nil, fmt.Errorf("relay: a retention of %s is shorter than a view's TTL of %s", o.Retention, longest)
	}
	m, err := newRelayMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	patience := &patience{}
	o.Fences = patientFences{o.Fences, patience}
	watch := &Watch{views: o.Views, wait: examineWait}
	return &Relay{o: o, metrics: m, watch: watch, patience: patience, bounds: answerBounds{answerBound, statementBound + answerBound}, why: errors.New("the relay has not started yet")}, nil
}

// Run leads or stands by until the context ends, through any failure of either
// server.
func (r *Relay) Run(ctx context.Context) (err error) {
	client, err := r.o.Dial(nil) // each script compares the position, so a new connection is no news
	if err != nil {
		return fmt.Errorf("relay: connect to Redis: %w", err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	streams := newStreams(client, r.o.Keys)
	pause := retryFrom
	for {
		started := time.Now()
		err := r.session(ctx, streams)
		r.set(func(s *RelayState) { s.Leader = false })
		r.metrics.follow()
		if ctx.Err() != nil {
			return nil
		}
		if r.stall("postgres", err) {
			r.o.Log.Warn().Err(err).Msg("relay lost its session")
		}
		if time.Since(started) > retryMost {
			pause = retryFrom
		}
		if !rest(ctx, pause/2+rand.N(pause)) {
			return nil
		}
		pause = min(2*pause, retryMost)
	}
}

// session is one connection to PostgreSQL: standing by, then leading. One
// connection for everything: who loses it has lost the lead and can read no more.
func (r *Relay) session(ctx context.Context, streams *streams) (err error) {
	config, err := pgx.ParseConfig(r.o.ListenURL)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = shutdownBound
	}
	config.Tracer = r.bounds
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownBound)
		defer cancel()
		err = errors.Join(err, conn.Close(closing))
	}()
	if err := setUp(ctx, conn); err != nil {
		return err
	}
	// Now already: whoever takes over has other things to do.
	if _, err := r.watch.Look(ctx, conn); err != nil {
		return err
	}
	if err := r.standBy(ctx, conn); err != nil {
		return err
	}
	r.o.Log.Info().Msg("relay leads")
	defer r.o.Log.Info().Msg("relay leads no longer")
	r.report(r.watch.Drift())
	return r.newLead(conn, streams).run(ctx)
}

func (r *Relay) newLead(conn *pgx.Conn, streams *streams) *lead {
	l := &lead{relay: r, conn: conn, streams: streams, remapKeys: remapKeys, batchRows: batchRows, broken: map[string]string{},
		ahead: readAhead{conn: conn}, rotation: rotation{conn: conn, retention: r.o.Retention, lockWait: truncateWait}}
	r.patience.keep, streams.patience = l.keep, r.patience
	return l
}

// setUp gives a session the settings that the relay relies on. A process that is
// stopped loses its session, and with it the lead: between statements, in a
// transaction as well, and in the middle of a reply that it does not read, which
// no timeout of PostgreSQL's own ends (over a Unix socket nothing does).
func setUp(ctx context.Context, conn *pgx.Conn) error {
	// The planner has no statistics of an outbox that is empty at most times, and
	// must never think that reading all of it is cheap. To plan a reading takes six
	// times as long as to do it (540 and 72 µs measured), so one plan serves all.
	settings := fmt.Sprintf(`SET application_name = '%[1]s'; SET default_transaction_isolation = 'read committed'; SET synchronous_commit = off;
		SET idle_session_timeout = %[2]d; SET idle_in_transaction_session_timeout = %[2]d; SET tcp_user_timeout = %[2]d; SET statement_timeout = %[3]d;
		SET timezone = 'UTC'; SET jit = off; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off`,
		applicationName, sessionTimeout.Milliseconds(), statementBound.Milliseconds())
	if _, err := conn.Exec(ctx, settings); err != nil {
		return fmt.Errorf("set up the session: %w", err)
	}
	return nil
}

// standBy returns once the session holds the leader's lock. It asks again and
// again: waiting in the server for a lock would hold back its xmin.
func (r *Relay) standBy(ctx context.Context, conn *pgx.Conn) error {
	told := false
	for {
		var got bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(leaderLock)).Scan(&got); err != nil {
			return fmt.Errorf("ask for the lead: %w", err)
		}
		if got {
			return nil
		}
		r.mend()
		if !told {
			r.o.Log.Info().Msg("relay stands by")
			told = true
		}
		if !rest(ctx, standbyEvery) {
			return ctx.Err()
		}
	}
}

// Ready reports why rows are not being sent, or nil.
func (r *Relay) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// State returns a copy of the relay's state.
func (r *Relay) State() RelayState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

func (r *Relay) set(change func(*RelayState)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.state)
}

// fail notes that Redis keeps rows from being sent, and reports whether that is news.
func (r *Relay) fail(err error) bool {
	var refused redis.Error
	var slow net.Error
	switch {
	case errors.Is(err, errFull), redis.HasErrorPrefix(err, "OOM"):
		return r.stall("redis full", err)
	case errors.As(err, &refused):
		return r.stall("redis refuses", err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return r.stall("redis slow", fmt.Errorf("no answer within %s: %w", redisBound, err))
	default:
		return r.stall("redis away", err)
	}
}

// stall notes why nothing is sent, and reports whether that is news.
func (r *Relay) stall(why string, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := err != nil && (r.why == nil || r.why.Error() != err.Error())
	r.why = err
	r.metrics.stall(why)
	return news
}

// mend notes that things go as they should, and reports whether that is news.
func (r *Relay) mend() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := r.why != nil
	r.why = nil
	r.metrics.stall("")
	return news
}

// rest waits and reports whether to go on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
