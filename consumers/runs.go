package consumers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// runEvents is the table that run events are kept in.
const runEvents = "mythic_cache.run_events"

// RunsOptions are the choices of Runs. The zero value is usable.
type RunsOptions struct {
	Log zerolog.Logger
}

// Runs keeps the events of runs. Handle is a handler of watermill's Router for
// topic "run", whose middleware stream.RecordFailure it needs.
type Runs struct {
	pool   *pgxpool.Pool
	filler *Filler
	shown  []*view.View
	log    zerolog.Logger
}

// NewRuns makes the keeper of run events. The views that show them by the run's
// id are filled as soon as an event is kept; all others hear of it as of any
// other change of a table.
func NewRuns(pool *pgxpool.Pool, filler *Filler, views *view.Set, o RunsOptions) *Runs {
	r := &Runs{pool: pool, filler: filler, log: o.Log}
	for _, v := range views.All() {
		if v.OnChange == view.Precompute && v.Mapped(runEvents) != nil && len(v.Key) == 1 && v.Key[0] == "run_id" {
			r.shown = append(r.shown, v)
		}
	}
	return r
}

// Handle keeps one event, durably and once, however often it comes.
func (r *Runs) Handle(m *message.Message) error {
	ctx := m.Context()
	e, err := stream.EventOf(m)
	if err != nil {
		return fmt.Errorf("%w: %w", stream.ErrReject, err)
	}
	if !event.IsRunEvent(e.Type) {
		return fmt.Errorf("%w: %s is no event of a run", stream.ErrReject, e.Type)
	}
	if e.Subject == "" {
		return fmt.Errorf("%w: %s names no run", stream.ErrReject, e.Type)
	}
	if len(e.Data) > 0 && !isObject(e.Data) {
		return fmt.Errorf("%w: the data of %s is no JSON object", stream.ErrReject, e.Type)
	}
	seen, err := r.keep(ctx, e)
	if err != nil {
		return runFailure(err)
	}
	if seen == nil {
		r.log.Debug().Str("run_id", e.Subject).Str("type", e.Type).Msg("run event known already")
		return nil
	}
	r.log.Debug().Str("run_id", e.Subject).Str("type", e.Type).Msg("run event kept")
	r.show(ctx, e.Subject, seen)
	return nil
}

// keep writes the event and returns the transaction that did, nil where the
// event was there already.
func (r *Runs) keep(ctx context.Context, e event.Event) (*cache.MinXid, error) {
	var data *string
	if len(e.Data) > 0 {
		text := string(e.Data)
		data = &text
	}
	ctx, cancel := context.WithTimeout(ctx, r.filler.loader.Deadline())
	defer cancel()
	var xid string
	err := r.pool.QueryRow(ctx, `
		INSERT INTO mythic_cache.run_events (source, event_id, run_id, type, time, data)
		VALUES ($1, $2, $3, $4, $5, $6::text::jsonb)
		ON CONFLICT DO NOTHING
		RETURNING pg_current_xact_id()::text`,
		e.Source, e.ID, e.Subject, e.Type, e.Time, data).Scan(&xid)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keep %s: %w", e.Type, err)
	}
	number, err := strconv.ParseUint(xid, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("keep %s: transaction id %q is no number", e.Type, xid)
	}
	return &cache.MinXid{Xid: number}, nil
}

// show fills the views of the run. It is a head start and no more: the event is
// a change of a table, whose way through the outbox makes sure.
func (r *Runs) show(ctx context.Context, run string, seen *cache.MinXid) {
	for _, v := range r.shown {
		if err := r.filler.Fill(ctx, v, run, FillOptions{MinXid: seen}); err != nil {
			r.log.Debug().Err(err).Str("view", v.Name).Str("run_id", run).Msg("no head start for a run's view")
		}
	}
}

// runFailure says to the stream what a failed write means for its event: an
// absent server costs no delivery, and what can never be stored is rejected.
func runFailure(err error) error {
	state := sqlState(err)
	if len(state) == 5 && (state[:2] == "22" || state[:2] == "23") {
		return fmt.Errorf("%w: %w", stream.ErrReject, err)
	}
	if err := reached(context.Background(), err, state == ""); errors.Is(err, ErrPaused) {
		return fmt.Errorf("%w: %w", stream.ErrPause, err)
	}
	return err
}

// isObject reports whether valid JSON is an object.
func isObject(data json.RawMessage) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
}
