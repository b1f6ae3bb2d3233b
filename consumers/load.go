package consumers

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

var (
	// ErrNoEpoch says that what was read has no place in the order of versions:
	// the relay has not named an epoch since the last crash, or the server is a
	// standby. It passes by itself.
	ErrNoEpoch = errors.New("no epoch is in force")

	// ErrPaused says that PostgreSQL is away, or not migrated yet. It passes by
	// itself.
	ErrPaused = errors.New("PostgreSQL is away")

	// errOwnXid says that the load took a transaction id, which its own snapshot
	// leaves out.
	errOwnXid = errors.New("the load writes: it has taken a transaction id")
)

// firstPatience is how long a load waits for its turn where nothing else is said: a
// reader waits for an answer for a quarter of a second.
const firstPatience = 100 * time.Millisecond

// LoaderOptions are the choices of a Loader. The zero value is usable.
type LoaderOptions struct {
	Timeout time.Duration // of one load, on the server; 20 s. Fences must outlive it
	Turns   int           // loads of one view at a time; a third of the pool, so that two slow views leave as much to the others
	Log     zerolog.Logger
	Metrics prometheus.Registerer // nil: none
}

// Loader reads the truth: a view's key together with the snapshot that it was
// read in. It is safe for concurrent use.
type Loader struct {
	pool    *pgxpool.Pool
	timeout time.Duration
	turns   *turns
	log     zerolog.Logger
	took    *prometheus.HistogramVec
	refused *prometheus.CounterVec
	health  *health
}

// Loaded is what one statement read.
type Loaded struct {
	Found    bool   // false: there is no such row, which is an answer too
	Body     []byte // JSON, without a space that is not needed
	Owner    string // of an entry that is Owned; empty: nobody may read it
	Owned    bool
	Version  version.Version
	Snapshot version.Snapshot
	Took     time.Duration
}

// NewLoader makes a loader over the caller's pool. Loads leave an eighth of its
// connections to whoever else uses it.
func NewLoader(pool *pgxpool.Pool, o LoaderOptions) (*Loader, error) {
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	connections := int(pool.Config().MaxConns)
	if o.Turns <= 0 {
		o.Turns = max(connections/3, 1)
	}
	if o.Timeout < time.Millisecond {
		return nil, fmt.Errorf("loads cannot end within %s", o.Timeout)
	}
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "mythic_cache_load_seconds",
		Help:    "Time of one load from PostgreSQL.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
	}, []string{"view", "outcome"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mythic_cache_loads_refused_total",
		Help: "Loads that did not begin, since too many were under way, by view.",
	}, []string{"view"})
	if err := errors.Join(register(o.Metrics, took), register(o.Metrics, refused)); err != nil {
		return nil, err
	}
	return &Loader{
		pool: pool, timeout: o.Timeout, turns: newTurns(o.Turns, connections-connections/8),
		log: o.Log, took: took, refused: refused, health: newHealth(o.Log),
	}, nil
}

// Deadline returns how long a load may take in all once it has its turn, the way to
// the server included. A lease for a load is longer, a fence longer still.
func (l *Loader) Deadline() time.Duration { return l.timeout + l.timeout/10 + time.Second }

// BatchDeadline returns how long a batch of loads may take in all, those included
// that nothing but their Deadline ends. Whoever waits for batches waits longer.
func (l *Loader) BatchDeadline() time.Duration {
	// A request may have its transaction judged first, which may take as long as a
	// load; the second is for giving back leases.
	return laneFor + 2*l.Deadline() + time.Second
}

// Load reads the entry of a key in one statement on the primary. Its error wraps
// ErrBusy, ErrNoEpoch or ErrPaused where waiting helps, and is the context's where
// that has ended.
func (l *Loader) Load(ctx context.Context, v *view.View, key string) (Loaded, error) {
	return l.loadInTurn(ctx, v, key, firstPatience)
}

// loadInTurn waits for its turn for so long at most, then loads.
func (l *Loader) loadInTurn(ctx context.Context, v *view.View, key string, patience time.Duration) (Loaded, error) {
	give, err := l.turn(ctx, v, patience)
	if err != nil {
		return Loaded{}, err
	}
	defer give()
	return l.loadNow(ctx, v, key)
}

// turn waits for so long at most until a load of the view may begin.
func (l *Loader) turn(ctx context.Context, v *view.View, patience time.Duration) (give func(), err error) {
	give, err = l.turns.take(ctx, v.Name, patience)
	if errors.Is(err, ErrBusy) {
		l.refused.WithLabelValues(v.Name).Inc()
	}
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", v.Name, err)
	}
	return give, nil
}

// loadNow loads for who has a turn. What a failed load took it tells, too.
func (l *Loader) loadNow(ctx context.Context, v *view.View, key string) (Loaded, error) {
	start := time.Now()
	loaded, err := l.load(ctx, v, key)
	loaded.Took = time.Since(start)
	l.took.WithLabelValues(v.Name, outcomeOf(err)).Observe(loaded.Took.Seconds())
	if !errors.Is(err, context.Canceled) {
		l.health.note(v.Name, err)
	}
	if err != nil {
		return Loaded{Took: loaded.Took}, fmt.Errorf("load %s: %w", v.Name, err)
	}
	l.log.Debug().Str("view", v.Name).Str("key", key).Bool("found", loaded.Found).Dur("took", loaded.Took).Msg("loaded")
	return loaded, nil
}

func (l *Loader) load(ctx context.Context, v *view.View, key string) (Loaded, error) {
	if v.Model {
		return Loaded{}, errors.New("a model answers this view, not SQL")
	}
	var loaded Loaded
	err := l.read(ctx, loadOf(v, key, &loaded))
	if badKey(err) {
		// No row can have a key that is no value of the key's type.
		loaded = Loaded{}
		err = l.read(ctx, loadOf(v, "", &loaded))
	}
	return loaded, err
}

// loadOf returns the one statement that reads a key, its snapshot and its epoch.
// A key that has not the view's number of parts has no row. Nor has one that
// PostgreSQL spells differently, such as 007 for a number: changes of the row name
// it as PostgreSQL does, so under another name it would outlive them.
func loadOf(v *view.View, key string, into *Loaded) query {
	parts, ok := view.SplitKey(key, len(v.Key))
	args := make([]any, len(parts))
	for i, part := range parts {
		args[i] = part
	}
	// FROM comes first in analysis, so the load decides of which type a part is.
	load, spelt := v.Load, make([]string, len(parts))
	for i := range parts {
		spelt[i] = fmt.Sprintf("$%d::text", i+1)
	}
	if !ok || key == "" {
		load, args, spelt = "SELECT NULL::json WHERE false", nil, nil
	}
	return query{
		sql: `SELECT pg_current_snapshot()::text, mythic_cache.current_epoch()::text,
			pg_current_xact_id_if_assigned() IS NULL, pg_is_in_recovery(),
			ARRAY[` + strings.Join(spelt, ", ") + `]::text[], l.*
			FROM (SELECT) one LEFT JOIN (SELECT true, l.* FROM (
			` + load + `
			) l LIMIT 2) l ON true`,
		args: args,
		scan: func(rows pgx.Rows) error { return into.scan(rows, key) },
	}
}

// scan reads the rows of a load: one that has at least the document, and the
// owner where the view has owners.
func (l *Loaded) scan(rows pgx.Rows, key string) error {
	if !rows.Next() {
		return cmp.Or(rows.Err(), errors.New("the load gave no row at all"))
	}
	var snapshot string
	var epoch, owner *string
	var pure, recovery bool
	var found *bool
	var body []byte
	var spelt []string
	columns := []any{&snapshot, &epoch, &pure, &recovery, &spelt, &found, &body}
	for _, column := range rows.FieldDescriptions()[len(columns):] {
		if column.Name != "owner" || l.Owned {
			return fmt.Errorf("the load has a column %s; there are the document and, behind it, owner", column.Name)
		}
		l.Owned = true
		columns = append(columns, &owner)
	}
	if err := rows.Scan(columns...); err != nil {
		return fmt.Errorf("read the load's row: %w", err)
	}
	if rows.Next() {
		return errors.New("the load gave more than one row")
	}
	if err := rows.Err(); err != nil {
		return err
	}
	// A row without a document is no row; an owner that is NULL is none.
	l.Found = found != nil && body != nil && view.JoinKey(spelt...) == key
	l.Owned = l.Found && owner != nil
	if l.Found {
		// PostgreSQL puts spaces between, which would be stored and sent each time.
		compact := bytes.NewBuffer(make([]byte, 0, len(body)))
		if err := json.Compact(compact, body); err != nil {
			return errors.New("the load's document is not JSON")
		}
		l.Body = compact.Bytes()
	}
	if l.Owned {
		l.Owner = *owner
	}
	return l.place(snapshot, epoch, pure, recovery)
}

// place judges whether the snapshot can stand in the order of versions.
func (l *Loaded) place(snapshot string, epoch *string, pure, recovery bool) error {
	if epoch == nil || recovery {
		return ErrNoEpoch
	}
	if !pure {
		return errOwnXid
	}
	number, err := strconv.ParseUint(*epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("epoch %q is no number", *epoch)
	}
	if l.Snapshot, err = version.ParseSnapshot(number, snapshot); err != nil {
		return err
	}
	l.Version = l.Snapshot.Version()
	return nil
}
