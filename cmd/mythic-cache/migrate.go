package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/migrations"
	"mythiccache/producers"
)

type migrateCommand struct {
	Up     migrateUp     `cmd:"" help:"Install the schema and the triggers of the views."`
	Down   migrateDown   `cmd:"" help:"Take schema and triggers away again."`
	Status migrateStatus `cmd:"" help:"Show which migrations are applied, and whether the triggers match the views."`
}

type (
	migrateUp     struct{}
	migrateDown   struct{}
	migrateStatus struct{}
	demoCommand   struct {
		Load demoLoad `cmd:"" help:"Create Mythic's tables where they are missing and fill them."`
	}
	demoLoad struct{}
)

// connect opens the one connection that a command works with.
func (c *config) connect(ctx context.Context) (*pgx.Conn, error) {
	if err := c.needsDatabase(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", withoutURL(err))
	}
	return conn, nil
}

// withDatabase gives do the configuration and a connection, and closes it.
func (p *program) withDatabase(ctx context.Context, do func(*config, *pgx.Conn) error) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return do(c, conn)
}

// Run installs schema and triggers and says what it installed.
func (migrateUp) Run(ctx context.Context, p *program) error {
	return p.withDatabase(ctx, func(c *config, conn *pgx.Conn) error {
		taken, err := producers.Migrate(ctx, c.DatabaseURL)
		if err != nil {
			return err
		}
		for _, step := range taken {
			fmt.Fprintln(p.stdout, "applied", step.File)
		}
		return p.install(ctx, c, conn)
	})
}

// install brings the triggers in line with the views and says what changed.
func (p *program) install(ctx context.Context, c *config, conn *pgx.Conn) error {
	installed, err := producers.Install(ctx, conn, c.views)
	if err != nil {
		return err
	}
	if len(installed) == 0 {
		fmt.Fprintln(p.stdout, "the triggers already match the views")
	}
	for _, what := range installed {
		fmt.Fprintln(p.stdout, what)
	}
	return nil
}

// Run removes the triggers and the schema with all it holds.
func (migrateDown) Run(ctx context.Context, p *program) error {
	return p.withDatabase(ctx, func(c *config, _ *pgx.Conn) error {
		if err := producers.MigrateDown(ctx, c.DatabaseURL); err != nil {
			return err
		}
		_, err := fmt.Fprintln(p.stdout, "schema mythic_cache and its triggers are gone")
		return err
	})
}

// Run shows migrations and drift; either, where not as it should be, is exit
// status 1.
func (migrateStatus) Run(ctx context.Context, p *program) error {
	return p.withDatabase(ctx, func(c *config, conn *pgx.Conn) error {
		steps, err := producers.MigrateStatus(ctx, c.DatabaseURL)
		if err != nil {
			return err
		}
		for _, step := range steps {
			state := "missing"
			if step.Applied {
				state = "applied"
			}
			fmt.Fprintln(p.stdout, state, step.File)
		}
		if slices.ContainsFunc(steps, func(s producers.Migration) bool { return !s.Applied }) {
			fmt.Fprintln(p.stdout, "run `mythic-cache migrate up`")
			return exitError(1) // what triggers there are is not known without the schema
		}
		drift, err := producers.Examine(ctx, conn, c.views)
		if err := errors.Join(err, drift.Err()); err != nil {
			fmt.Fprintln(p.stdout, err)
			return exitError(1)
		}
		_, err = fmt.Fprintln(p.stdout, "the triggers match the views")
		return err
	})
}

// Run creates Mythic's tables and rows. Where our schema is already there, the
// triggers are put on the new tables too, so that either command may come first.
func (demoLoad) Run(ctx context.Context, p *program) error {
	return p.withDatabase(ctx, func(c *config, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, migrations.DemoTables()); err != nil {
			return fmt.Errorf("create Mythic's tables: %w", err)
		}
		if pending(ctx, c.DatabaseURL) == nil {
			if err := p.install(ctx, c, conn); err != nil {
				return err
			}
		}
		if _, err := conn.Exec(ctx, migrations.DemoRows()); err != nil {
			return fmt.Errorf("fill Mythic's tables: %w", err)
		}
		var users, books, runs int
		err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM books), (SELECT count(*) FROM processing_sessions)`).Scan(&users, &books, &runs)
		if err != nil {
			return fmt.Errorf("count the demo's rows: %w", err)
		}
		_, err = fmt.Fprintf(p.stdout, "%d users, %d books and %d runs are there; user_1 is one to try\n", users, books, runs)
		return err
	})
}
