package producers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/view"
)

//go:embed unsteady.sql
var unsteadySQL string

// UnsteadyLoad is a load that may give another answer though nothing has changed: an
// audit may then take a good entry for a wrong one.
type UnsteadyLoad struct {
	View string
	Why  string // a sentence, about the load
}

// Unsteady looks for loads that read the clock, call what is VOLATILE, or make lists
// of rows in no order. It changes nothing. A view whose load cannot be read is left
// out: Examine says why. What a LIMIT without an order leaves open it does not see,
// nor what is in functions that PostgreSQL keeps as text.
func Unsteady(ctx context.Context, conn *pgx.Conn, views *view.Set) (all []UnsteadyLoad, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for unsteady loads: %w", err)
	}
	defer tx.Rollback(ctx) // it changed nothing
	for _, v := range views.All() {
		if v.Model {
			continue
		}
		reasons, err := unsteady(ctx, tx, v)
		if err != nil && (ctx.Err() != nil || conn.IsClosed()) {
			return nil, fmt.Errorf("look for unsteady loads: %w", err)
		}
		for _, why := range reasons {
			all = append(all, UnsteadyLoad{v.Name, why})
		}
	}
	return all, nil
}

func unsteady(ctx context.Context, tx pgx.Tx, v *view.View) (reasons []string, err error) {
	nested, err := tx.Begin(ctx) // a savepoint: what is made here goes again
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, nested.Rollback(ctx)) }()
	load := "SELECT 1 AS one FROM (\n" + trim(parameter.ReplaceAllString(v.Load, "NULL")) + "\n) AS l"
	if _, err := nested.Exec(ctx, "CREATE TEMPORARY VIEW mythic_cache_probe AS\n"+load); err != nil {
		return nil, err
	}
	rows, err := nested.Query(ctx, unsteadySQL, "pg_temp.mythic_cache_probe")
	if err != nil {
		return nil, err
	}
	trees, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	for _, tree := range trees {
		more, err := unsteadyIn(ctx, nested, tree)
		if err != nil {
			return nil, err
		}
		reasons = append(reasons, more...)
	}
	slices.Sort(reasons)
	return slices.Compact(reasons), nil
}

var (
	// Which functions a tree calls, also by the name of an operator.
	treeCalls = regexp.MustCompile(`:(?:funcid|opfuncid) (\d+)`)
	// Of the standard's words without parentheses, 0 to 8 are times.
	treeClock = regexp.MustCompile(`\{SQLVALUEFUNCTION :op [0-8] `)
	// Where an aggregate begins, and where its order or, of one without, its DISTINCT is.
	treeAggregate = regexp.MustCompile(`:aggfnoid (\d+)|:aggorder (\(|<> :aggdistinct (?:\(|<>))`)
)

// unsteadyIn gives the reasons in one tree.
func unsteadyIn(ctx context.Context, tx pgx.Tx, tree string) (reasons []string, err error) {
	if treeClock.MatchString(tree) {
		reasons = append(reasons, "it reads the clock: CURRENT_TIMESTAMP or one of its kind")
	}
	var called []string
	for _, m := range treeCalls.FindAllStringSubmatch(tree, -1) {
		called = append(called, m[1])
	}
	const query = `SELECT DISTINCT CASE
			WHEN p.oid = ANY ($2::text[]::oid[]) THEN p.proname || '() makes a list without ORDER BY'
			WHEN p.provolatile = 'v' THEN 'it calls ' || CASE n.nspname WHEN 'pg_catalog' THEN '' ELSE n.nspname || '.' END || p.proname || '(), which is VOLATILE'
			ELSE 'it calls ' || p.proname || '(), whose answer passes with time' END
		FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE p.oid = ANY ($1::text[]::oid[]) AND (p.provolatile = 'v' OR n.nspname = 'pg_catalog' AND (
			p.proname IN ('now', 'transaction_timestamp', 'statement_timestamp', 'pg_current_snapshot', 'txid_current_snapshot')
			OR p.proname = 'age' AND p.pronargs = 1))
		OR p.oid = ANY ($2::text[]::oid[]) AND n.nspname = 'pg_catalog'
			AND p.proname IN ('json_agg', 'jsonb_agg', 'array_agg', 'string_agg', 'xmlagg', 'json_agg_strict', 'jsonb_agg_strict')`
	rows, err := tx.Query(ctx, query, called, unordered(tree))
	if err != nil {
		return nil, err
	}
	more, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return append(reasons, more...), err
}

// unordered returns the aggregates of a tree that take their rows in no order. Rows that
// a subquery has sorted come in that order; which aggregate they go to is not looked at.
func unordered(tree string) []string {
	if strings.Contains(tree, ":sortClause (") {
		return nil
	}
	var begun, found []string // an aggregate may stand in a subquery of another's argument
	for _, m := range treeAggregate.FindAllStringSubmatch(tree, -1) {
		if m[1] != "" {
			begun = append(begun, m[1])
			continue
		}
		if len(begun) == 0 {
			return found
		}
		last := begun[len(begun)-1]
		begun = begun[:len(begun)-1]
		if m[2] == "<> :aggdistinct <>" {
			found = append(found, last)
		}
	}
	return found
}
