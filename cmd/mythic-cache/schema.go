package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/producers"
)

// schemaGate keeps relay and workers waiting until PostgreSQL has our schema,
// and goes on looking whether the triggers still match the views.
type schemaGate struct {
	*worker
	migrate bool
	open    chan struct{} // closed once the schema is there
	state   part
}

// lookEvery is how often the schema is looked at: often while it is awaited,
// seldom afterwards.
const (
	lookSoon  = 500 * time.Millisecond
	lookEvery = 15 * time.Second
)

// run looks until ctx ends.
func (g *schemaGate) run(ctx context.Context) error {
	opened := false
	for {
		err := g.look(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // whatever look was doing, it was asked to stop
		}
		if g.state.report(err) {
			if err != nil {
				g.log.Warn().Err(err).Msg("waiting for the schema")
			} else {
				g.log.Info().Msg("schema and triggers match the views")
			}
		}
		if err == nil && !opened {
			opened = true
			close(g.open)
		}
		pause := lookSoon
		if err == nil {
			pause = lookEvery
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// look returns what keeps the schema from being right, having mended it before
// where it may.
func (g *schemaGate) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, g.DatabaseURL)
	if err != nil {
		return fmt.Errorf("postgres: %w", withoutURL(err))
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if g.migrate {
		if err := g.mend(ctx, conn); err != nil {
			return err
		}
		g.migrate = false
	}
	if err := pending(ctx, g.DatabaseURL); err != nil {
		return err
	}
	if err := producers.Drift(ctx, conn, g.views); err != nil {
		return fmt.Errorf("triggers do not match the views, `mythic-cache migrate up` mends it: %w", err)
	}
	return nil
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

func (g *schemaGate) mend(ctx context.Context, conn *pgx.Conn) error {
	if _, err := producers.Migrate(ctx, g.DatabaseURL); err != nil {
		return err
	}
	installed, err := producers.Install(ctx, conn, g.views)
	if err != nil {
		return fmt.Errorf("install triggers: %w", err)
	}
	for _, what := range installed {
		g.log.Info().Str("what", what).Msg("installed")
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
