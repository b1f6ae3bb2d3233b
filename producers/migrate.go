package producers

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql's driver, which goose wants
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"mythiccache/migrations"
)

// gooseTable keeps goose's own notes out of the app's schemas.
const gooseTable = "mythic_cache.goose_db_version"

// Migration is one step of schema mythic_cache.
type Migration struct {
	Version int64
	File    string
	Applied bool
}

// Migrate brings schema mythic_cache up to date and returns the steps it took.
// Several processes may call it at once. The triggers on the app's tables are
// Install's.
func Migrate(ctx context.Context, url string) ([]Migration, error) {
	var taken []Migration
	err := withGoose(ctx, url, true, func(_ *sql.DB, p *goose.Provider) error {
		results, err := p.Up(ctx)
		for _, r := range results {
			taken = append(taken, Migration{Version: r.Source.Version, File: r.Source.Path, Applied: true})
		}
		return err
	})
	if err != nil {
		return taken, fmt.Errorf("migrate up: %w", err)
	}
	return taken, nil
}

// MigrateDown takes away all that is ours, triggers first. Where nothing of ours
// is there it does nothing.
func MigrateDown(ctx context.Context, url string) error {
	err := withGoose(ctx, url, false, func(db *sql.DB, p *goose.Provider) error {
		if err := uninstallAll(ctx, db); err != nil {
			return err
		}
		if _, err := p.DownTo(ctx, 0); err != nil {
			return err
		}
		// No CASCADE: what somebody else put there is not ours to drop.
		_, err := db.ExecContext(ctx, "DROP TABLE "+gooseTable+"; DROP SCHEMA mythic_cache")
		return err
	})
	if err != nil {
		return fmt.Errorf("migrate down: %w", err)
	}
	return nil
}

// MigrateStatus returns every step and whether it has been taken.
func MigrateStatus(ctx context.Context, url string) ([]Migration, error) {
	var steps []Migration
	err := withGoose(ctx, url, false, func(_ *sql.DB, p *goose.Provider) error {
		all, err := p.Status(ctx)
		for _, s := range all {
			steps = append(steps, Migration{Version: s.Source.Version, File: s.Source.Path, Applied: s.State == goose.StateApplied})
		}
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("migrate status: %w", err)
	case steps == nil: // no schema
		return []Migration{{Version: 1, File: "00001_mythic_cache.sql"}}, nil
	}
	return steps, nil
}

// withGoose runs do beside a provider, in a schema that it makes where asked to.
// Without the schema, and not asked to make it, do is not run.
func withGoose(ctx context.Context, url string, create bool, do func(*sql.DB, *goose.Provider) error) (err error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var there bool
	if err := db.QueryRowContext(ctx, "SELECT to_regnamespace('mythic_cache') IS NOT NULL").Scan(&there); err != nil {
		return fmt.Errorf("look for schema mythic_cache: %w", err)
	}
	if !there && !create {
		return nil
	}
	if !there {
		// IF NOT EXISTS can still collide with another process that makes it now.
		const schema = `DO $$ BEGIN CREATE SCHEMA mythic_cache; EXCEPTION WHEN duplicate_schema OR unique_violation THEN NULL; END $$`
		if _, err := db.ExecContext(ctx, schema); err != nil {
			return fmt.Errorf("make schema mythic_cache: %w", err)
		}
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("prepare the migration lock: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS(),
		goose.WithTableName(gooseTable), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	return do(db, p)
}
