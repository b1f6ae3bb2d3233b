package producers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed depends.sql
var dependsSQL string

// reading is a relation that a query reads, and which columns it names.
type reading struct {
	relation
	columns []string
}

// object is a rule or a function that a query reads through, and which
// transaction wrote it.
type object struct {
	oid  uint32
	xmin string
}

// textOf is how the shape statement names objects.
func textOf(objects []object) string {
	var b strings.Builder
	for i, o := range objects {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%d %s", o.oid, o.xmin)
	}
	return b.String()
}

// readsOf returns the relations that a query reads and what it reads them through.
// Where a table is given, changed stands for its rows; where width is, the query
// must have so many columns.
func readsOf(ctx context.Context, tx pgx.Tx, query string, changed *relation, width int) (reads []reading, through []object, err error) {
	nested, err := tx.Begin(ctx) // a savepoint: what is made here goes again
	if err != nil {
		return nil, nil, fmt.Errorf("begin: %w", err)
	}
	defer func() { err = errors.Join(err, nested.Rollback(ctx)) }()
	if strings.Contains(query, quote) {
		return nil, nil, fmt.Errorf("it holds %s, which quotes our own text", quote)
	}
	stop := uint32(0)
	if changed != nil {
		if _, err := nested.Exec(ctx, "CREATE TEMPORARY VIEW changed AS SELECT * FROM "+changed.name); err != nil {
			return nil, nil, fmt.Errorf("stand in for %s: %w", changed.name, err)
		}
		if err := nested.QueryRow(ctx, "SELECT 'pg_temp.changed'::regclass::oid").Scan(&stop); err != nil {
			return nil, nil, fmt.Errorf("stand in for %s: %w", changed.name, err)
		}
	}
	if _, err := nested.Exec(ctx, "CREATE TEMPORARY VIEW mythic_cache_probe AS\n"+query); err != nil {
		return nil, nil, err // PostgreSQL's own sentence says it best
	}
	// A whole row names no column: all of them are needed then.
	var got int
	var wholeRow bool
	const look = `SELECT c.relnatts, EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_action::text ~ ':varattno 0 ')
		FROM pg_class c WHERE c.oid = 'pg_temp.mythic_cache_probe'::regclass`
	if err := nested.QueryRow(ctx, look).Scan(&got, &wholeRow); err != nil {
		return nil, nil, fmt.Errorf("look at the query: %w", err)
	}
	if width > 0 && got != width {
		return nil, nil, fmt.Errorf("it selects %d columns, not %d", got, width)
	}
	rows, err := nested.Query(ctx, dependsSQL, "pg_temp.mythic_cache_probe", stop)
	if err != nil {
		return nil, nil, fmt.Errorf("look up what it reads: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r reading, err error) {
		return r, row.Scan(&r.oid, &r.name, &r.kind, &r.columns)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("look up what it reads: %w", err)
	}
	for _, r := range all {
		if r.kind == "" {
			through = append(through, object{r.oid, r.name})
			continue
		}
		reads = append(reads, r)
	}
	for i := range reads {
		if reads[i].oid != stop {
			continue
		}
		reads[i].relname = "changed"
		if wholeRow {
			const all = `SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped`
			if err := nested.QueryRow(ctx, all, stop).Scan(&reads[i].columns); err != nil {
				return nil, nil, fmt.Errorf("look up the columns of %s: %w", changed.name, err)
			}
		}
	}
	return reads, through, nil
}

// allMapped refuses relations that are neither mapped nor part of one that is.
func allMapped(ctx context.Context, tx pgx.Tx, reads []reading, mapped map[uint32]bool) error {
	for _, r := range reads {
		switch r.kind {
		case "m":
			return fmt.Errorf("reads %s, a materialised view, whose refresh nobody sees", r.name)
		case "f":
			return fmt.Errorf("reads %s, a foreign table, whose changes nobody sees", r.name)
		}
		const ancestors = `WITH RECURSIVE up(oid) AS (SELECT $1::oid UNION SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.oid) SELECT array_agg(oid) FROM up`
		var up []uint32
		if err := tx.QueryRow(ctx, ancestors, r.oid).Scan(&up); err != nil {
			return fmt.Errorf("reads %s, whose parents cannot be read: %w", r.name, err)
		}
		if !slices.ContainsFunc(up, func(oid uint32) bool { return mapped[oid] }) {
			return fmt.Errorf("reads %s, which the view does not map: a change there would go unnoticed", r.name)
		}
	}
	return nil
}
