package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/producers"
)

// schemaGate keeps relay and workers waiting until PostgreSQL has our schema, with
// triggers for these views, and goes on looking whether they match.
type schemaGate struct {
	*worker
	migrate bool
	open    chan struct{} // closed once the schema is there
	state   part

	// run's alone.
	conn     *pgx.Conn
	watch    *producers.Watch
	drift    producers.Drift
	migrated bool // schema and triggers were brought up to date, where that was asked for
	complete bool // schema mythic_cache was, when last looked at
	tried    time.Time
	refused  string // why drift was not mended, when last tried
}

// How often the schema is looked at: often while it is awaited, seldom afterwards;
// and how often it is tried to mend what drifts.
const (
	lookSoon  = 500 * time.Millisecond
	lookEvery = 3 * time.Second
	mendEvery = 15 * time.Second
)

// errDrift says that a view's changes may go unnoticed.
var errDrift = errors.New("triggers do not match the views, `mythic-cache migrate up` mends it")

// run looks until ctx ends.
func (g *schemaGate) run(ctx context.Context) error {
	g.watch = producers.NewWatch(g.views)
	defer g.disconnect(ctx)
	opened := false
	for {
		err := g.look(ctx)
		if ctx.Err() != nil {
			return nil // whatever look was doing, it was asked to stop
		}
		g.tell(err, opened)
		if !opened && (err == nil || errors.Is(err, errDrift) && g.installed(ctx)) {
			opened = true
			close(g.open)
		}
		pause := lookSoon
		if opened {
			pause = lookEvery
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// tell logs a change of what look found.
func (g *schemaGate) tell(err error, opened bool) {
	switch {
	case !g.state.report(err):
	case err == nil:
		g.log.Info().Msg("schema and triggers match the views")
	case opened:
		g.log.Warn().Err(err).Msg("schema and triggers are not as they should be")
	default:
		g.log.Warn().Err(err).Msg("waiting for the schema")
	}
}

// look returns what keeps the schema from being right, having mended it before
// where it may. Whatever fails, the next look begins afresh.
func (g *schemaGate) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := g.lookAt(ctx)
	if err != nil && !errors.Is(err, errDrift) {
		g.disconnect(ctx)
		g.complete = false
	}
	return err
}

func (g *schemaGate) lookAt(ctx context.Context) error {
	if err := g.connect(ctx); err != nil {
		return err
	}
	if g.migrate && !g.migrated {
		if err := g.bringUp(ctx); err != nil {
			return err
		}
		g.migrated = true
	}
	if !g.complete {
		if err := pending(ctx, g.DatabaseURL); err != nil {
			return err
		}
		g.complete = true
	}
	for again := true; again; {
		news, err := g.examine(ctx)
		if err != nil {
			return err
		}
		due := g.migrate && g.drift.Findings != nil && (news || time.Since(g.tried) >= mendEvery)
		again = due && g.mend(ctx)
	}
	if err := g.drift.Unseen().Err(); err != nil {
		return fmt.Errorf("%w: %w", errDrift, err)
	}
	return nil
}

// examine notes the drift, and reports whether it may be another than before. A
// leading relay has it with each heartbeat; to look beside it would be to ask twice.
func (g *schemaGate) examine(ctx context.Context) (news bool, err error) {
	if g.relay != nil && g.relay.Ready() == nil {
		if state := g.relay.State(); state.Leader {
			before := g.drift
			g.drift = state.Drift
			return fmt.Sprint(before.Err()) != fmt.Sprint(g.drift.Err()), nil
		}
	}
	news, err = g.watch.Look(ctx, g.conn)
	g.drift = g.watch.Drift()
	return news, err
}

// installed reports whether the triggers were once installed for these very views. To
// wait would not be safe then: entries of before are still served, and it takes the
// relay to invalidate those whose changes go unnoticed. Triggers of other views are
// those of another release, whose relay knows them.
func (g *schemaGate) installed(ctx context.Context) bool {
	same, err := producers.Installed(ctx, g.conn, g.views)
	return err == nil && same
}

// mend puts triggers on what came without, and reports whether it did anything.
// What it cannot do it tells once.
func (g *schemaGate) mend(ctx context.Context) bool {
	g.tried = time.Now()
	installed, err := producers.Mend(ctx, g.conn, g.views)
	refused := ""
	if err != nil {
		refused = err.Error()
	}
	if refused != g.refused && err != nil {
		g.log.Warn().Err(err).Msg("drift is not mended by itself")
	}
	g.refused = refused
	g.told(installed)
	return len(installed) > 0
}

// bringUp does what `migrate up` does.
func (g *schemaGate) bringUp(ctx context.Context) error {
	if _, err := producers.Migrate(ctx, g.DatabaseURL); err != nil {
		return err
	}
	installed, err := producers.Install(ctx, g.conn, g.views)
	if err != nil {
		return err
	}
	g.told(installed)
	return nil
}

func (g *schemaGate) told(installed []string) {
	for _, what := range installed {
		g.log.Info().Str("what", what).Msg("installed")
	}
}

// connect opens the connection that is kept from look to look.
func (g *schemaGate) connect(ctx context.Context) error {
	if g.conn != nil && !g.conn.IsClosed() {
		return nil
	}
	conn, err := pgx.Connect(ctx, g.DatabaseURL)
	if err != nil {
		return fmt.Errorf("postgres: %w", withoutURL(err))
	}
	g.conn = conn
	return nil
}

func (g *schemaGate) disconnect(ctx context.Context) {
	if g.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	g.conn.Close(ctx)
	g.conn = nil
}

// pending returns an error that names the first migration that is missing.
func pending(ctx context.Context, url string) error {
	steps, err := producers.MigrateStatus(ctx, url)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if !step.Applied {
			return fmt.Errorf("schema mythic_cache lacks %s: run `mythic-cache migrate up`", step.File)
		}
	}
	return nil
}

// after runs a task once the schema is there.
func (g *schemaGate) after(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-g.open:
			return run(ctx)
		}
	}
}
