package cache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// The decisions that the store makes about a fill. Test for them with errors.Is.
var (
	// ErrLeased says that somebody else is filling the key.
	ErrLeased = errors.New("another holds the lease")
	// ErrOvertaken says that a value has been put since the caller looked.
	ErrOvertaken = errors.New("another value is there by now")
	// ErrLost says that the lease is no longer the caller's.
	ErrLost = errors.New("the lease is lost")
	// ErrRefused says that a value was not stored, since it may be too old.
	ErrRefused = errors.New("refused")
	// ErrRestarted says that Redis is not the process that the caller spoke of.
	ErrRestarted = errors.New("redis was restarted")
)

// Dial makes a client that calls onConnect on every new connection before its
// first command. The client must set ContextTimeoutEnabled, or else the store's
// operations outlast their contexts. The store owns the client and closes it.
type Dial func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error)

// Options says how a store behaves. The zero value is usable.
type Options struct {
	Prefix   string        // of every name in Redis; DefaultPrefix where empty
	StaleFor time.Duration // how long past its TTL a value may still be served as Stale
	FenceTTL time.Duration // how long an invalidated key remembers its version; 2 minutes where 0
	AIKeys   AnswerKeys    // seal answers of models at rest; the zero value does not
	Log      zerolog.Logger
	Metrics  prometheus.Registerer // nil: none
}

// Store reads and writes the cache. It is safe for concurrent use.
type Store struct {
	keys     keys
	client   redis.UniversalClient
	dial     Dial
	staleFor time.Duration
	fenceTTL time.Duration
	scripts  scripts
	flows    twoScripts
	lines    twoScripts
	budgets  twoScripts
	peer     peer
	near     atomic.Pointer[near] // of the Reader, where there is one that keeps entries
	counts   *counts
	seals    seals
	took     *prometheus.HistogramVec
	log      zerolog.Logger
}

// defaultFenceTTL exceeds what a fill may take between its lease and its put.
const defaultFenceTTL = 2 * time.Minute

// New makes a store. Redis need not be up: each operation fails until it is.
func New(dial Dial, o Options) (*Store, error) {
	if dial == nil {
		return nil, errors.New("cache: no way to dial Redis")
	}
	if o.StaleFor < 0 || o.FenceTTL < 0 {
		return nil, fmt.Errorf("cache: neither StaleFor (%s) nor FenceTTL (%s) may be negative", o.StaleFor, o.FenceTTL)
	}
	if o.FenceTTL == 0 {
		o.FenceTTL = defaultFenceTTL
	}
	loaded, err := loadScripts()
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	flows, err := loadTwo("flow", "flow_forget")
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	lines, err := loadTwo("answer_lead", "answer_join")
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	budgets, err := loadTwo("budget", "budget_correct")
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	s := &Store{
		keys:     newKeys(o.Prefix),
		dial:     dial,
		staleFor: o.StaleFor,
		fenceTTL: o.FenceTTL,
		scripts:  loaded,
		flows:    flows,
		lines:    lines,
		budgets:  budgets,
		counts:   &counts{},
		seals:    newSeals(o.AIKeys),
		took:     newTook(),
		log:      o.Log,
	}
	if err := s.register(o.Metrics); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	if s.client, err = dial(s.onConnect); err != nil {
		return nil, fmt.Errorf("cache: dial redis: %w", err)
	}
	return s, nil
}

// Apart makes a store that does the same over connections of its own, for who may have
// much to do at once: none of it keeps what s does waiting for a connection, nor is more of
// it on its way to Redis, where all wait for one another, than those connections carry. It
// counts with s, has no Reader's memory, and is closed by itself.
func (s *Store) Apart(dial Dial) (*Store, error) {
	apart := &Store{
		keys: s.keys, dial: dial, staleFor: s.staleFor, fenceTTL: s.fenceTTL,
		scripts: s.scripts, flows: s.flows, lines: s.lines, budgets: s.budgets,
		counts: s.counts, seals: s.seals, took: s.took, log: s.log,
	}
	var err error
	if apart.client, err = dial(apart.onConnect); err != nil {
		return nil, fmt.Errorf("cache: dial redis: %w", err)
	}
	return apart, nil
}

// Close closes the connections. Waiters must have ended.
func (s *Store) Close() error { return s.client.Close() }

// FenceTTL returns how long an invalidated key remembers its version. Whoever holds a
// lease must be done before that.
func (s *Store) FenceTTL() time.Duration { return s.fenceTTL }

// StaleFor returns how long past its TTL a value may still be served as Stale.
func (s *Store) StaleFor() time.Duration { return s.staleFor }

// Client returns the store's client, for what has no operation here.
func (s *Store) Client() redis.UniversalClient { return s.client }

// Ping asks Redis for its time, and so finds out whether it answers.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.now(ctx)
	return err
}

// now asks Redis for its time.
func (s *Store) now(ctx context.Context) (time.Time, error) {
	sent := time.Now()
	now, err := s.client.Time(ctx).Result()
	if err != nil {
		return time.Time{}, fmt.Errorf("ask redis for its time: %w", err)
	}
	s.peer.observe(now, sent)
	return now, nil
}
