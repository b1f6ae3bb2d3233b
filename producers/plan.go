package producers

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/view"
)

// parameter is a key part in a view's load.
var parameter = regexp.MustCompile(`\$\d+`)

// plan is what the views ask of a database: triggers by table, in the order of
// their names.
type plan struct {
	tables  []*watched
	waiting []string // a sentence for each view whose tables do not exist yet
	path    string   // the search_path that all names were resolved by
}

// watched is one table or partition and what its changed rows concern.
type watched struct {
	oid      uint32
	name     string // with schema, quoted
	relname  string
	captures []capture
	owners   []ownership
}

// capture maps changed rows of one table to the keys of one view.
type capture struct {
	view, eventType string
	parts           int
	sql             string
	columns         []string // of changed that the mapping names; none: it names none
	distinct        bool     // the columns can be compared, so each combination of them is read once
	joined          bool     // the mapping reads more than the changed row, and so runs twice
	mapped          string   // the table whose row type changed has, quoted
	mappedOID       uint32
}

// ownership maps changed rows of one table to keys and owners to remember.
type ownership struct {
	view, eventType string
	parts           int
	sql             string
}

// relation is a table as the catalog knows it.
type relation struct {
	oid           uint32
	name, relname string
	kind          string
}

// makePlan works out what the views ask for. It makes temporary views and so
// wants a transaction that is rolled back, or a savepoint.
func makePlan(ctx context.Context, tx pgx.Tx, views *view.Set) (*plan, error) {
	p := &plan{}
	const path = `SELECT coalesce(string_agg(quote_ident(s), ', ' ORDER BY n), '') FROM unnest(current_schemas(false)) WITH ORDINALITY AS u(s, n) WHERE s NOT LIKE 'pg\_temp%'`
	if err := tx.QueryRow(ctx, path).Scan(&p.path); err != nil {
		return nil, fmt.Errorf("read the search path: %w", err)
	}
	byOID := map[uint32]*watched{}
	var wrong []error
	for _, v := range views.All() {
		if v.Model {
			continue
		}
		if err := p.add(ctx, tx, v, byOID); err != nil {
			wrong = append(wrong, fmt.Errorf("view %s: %w", v.Name, err))
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	for _, w := range byOID {
		p.tables = append(p.tables, w)
	}
	slices.SortFunc(p.tables, func(a, b *watched) int { return strings.Compare(a.name, b.name) })
	return p, nil
}

// add plans one view, or notes that it waits for tables.
func (p *plan) add(ctx context.Context, tx pgx.Tx, v *view.View, byOID map[uint32]*watched) error {
	tables := map[string]relation{}
	var missing []string
	for _, m := range slices.Concat(v.Tables, v.Owners) {
		r, err := lookUp(ctx, tx, m.Table)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			missing = append(missing, m.Table)
		case err != nil:
			return err
		}
		tables[m.Table] = r
	}
	if missing != nil {
		slices.Sort(missing)
		p.waiting = append(p.waiting, fmt.Sprintf("view %s waits for tables that do not exist yet: %s", v.Name, strings.Join(slices.Compact(missing), ", ")))
		return nil
	}
	mapped := map[uint32]bool{}
	for _, m := range v.Tables {
		mapped[tables[m.Table].oid] = true
	}
	reads, err := readsOf(ctx, tx, "SELECT 1 AS one FROM (\n"+trim(parameter.ReplaceAllString(v.Load, "NULL"))+"\n) AS l", nil, 0)
	if err != nil {
		return fmt.Errorf("its load: %w", err)
	}
	if err := allMapped(ctx, tx, reads, mapped); err != nil {
		return fmt.Errorf("its load %w", err)
	}
	for _, m := range v.Tables {
		c, err := planCapture(ctx, tx, v, m, tables[m.Table], mapped)
		if err != nil {
			return fmt.Errorf("the mapping of %s (line %d): %w", m.Table, m.Line, err)
		}
		if err := attach(ctx, tx, byOID, tables[m.Table], func(w *watched) { w.captures = append(w.captures, c) }); err != nil {
			return err
		}
	}
	for _, m := range v.Owners {
		table := tables[m.Table]
		parts := len(v.Key)
		if _, err := readsOf(ctx, tx, "SELECT m.* FROM (\n"+trim(m.SQL)+"\n) AS m ("+columns(parts)+", owner)", &table, parts+1); err != nil {
			return fmt.Errorf("the owners of %s (line %d): %w", m.Table, m.Line, err)
		}
		o := ownership{view: v.Name, eventType: m.Topic() + ".changed", parts: parts, sql: trim(m.SQL)}
		if err := attach(ctx, tx, byOID, table, func(w *watched) { w.owners = append(w.owners, o) }); err != nil {
			return err
		}
	}
	return nil
}

// planCapture checks one mapping and finds out whether it has to run twice.
func planCapture(ctx context.Context, tx pgx.Tx, v *view.View, m view.Mapping, table relation, mapped map[uint32]bool) (capture, error) {
	c := capture{view: v.Name, eventType: m.Topic() + ".changed", parts: len(v.Key), sql: trim(m.SQL), mapped: table.name, mappedOID: table.oid}
	reads, err := readsOf(ctx, tx, "SELECT m.* FROM (\n"+c.sql+"\n) AS m ("+columns(c.parts)+")", &table, c.parts)
	if err != nil {
		return c, err
	}
	var others []reading
	for _, r := range reads {
		if r.relname == "changed" && r.kind == "v" {
			c.columns = r.columns
		} else {
			others = append(others, r)
		}
	}
	if err := allMapped(ctx, tx, others, mapped); err != nil {
		return c, fmt.Errorf("it %w", err)
	}
	c.joined = others != nil
	if len(c.columns) == 0 {
		if c.joined {
			return c, errors.New("it joins, but names no column of changed to join by")
		}
		return c, nil
	}
	distinct := "SELECT DISTINCT c." + strings.Join(quoteAll(c.columns), ", c.") + " FROM changed c"
	_, err = readsOf(ctx, tx, distinct, &table, len(c.columns))
	if err != nil && c.joined {
		return c, fmt.Errorf("the columns it joins by: %w", err)
	}
	c.distinct = err == nil
	return c, nil
}

// lookUp finds a table by the name a views file gives it; pgx.ErrNoRows where
// there is none.
func lookUp(ctx context.Context, tx pgx.Tx, name string) (relation, error) {
	const query = `SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relname, c.relkind::text,
			EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`
	var r relation
	var subscribed bool
	err := tx.QueryRow(ctx, query, name).Scan(&r.oid, &r.name, &r.relname, &r.kind, &subscribed)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return r, pgx.ErrNoRows
	case err != nil:
		return r, fmt.Errorf("look up table %s: %w", name, err)
	case r.kind != "r" && r.kind != "p":
		return r, fmt.Errorf("%s is not a table: only a table's changes can be seen", name)
	case subscribed:
		return r, fmt.Errorf("%s is filled by a logical subscription, which fires no statement triggers", name)
	}
	return r, nil
}

// attach gives a table and all that inherits from it, partitions included, a
// share in a mapping: a statement fires the triggers of the table it names only.
func attach(ctx context.Context, tx pgx.Tx, byOID map[uint32]*watched, table relation, add func(*watched)) error {
	const family = `WITH RECURSIVE down(oid) AS (SELECT $1::oid UNION SELECT i.inhrelid FROM down JOIN pg_inherits i ON i.inhparent = down.oid)
		SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relname, c.relkind::text
		FROM down JOIN pg_class c ON c.oid = down.oid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 2`
	rows, err := tx.Query(ctx, family, table.oid)
	if err != nil {
		return fmt.Errorf("look up the partitions of %s: %w", table.name, err)
	}
	members, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r relation, err error) {
		return r, row.Scan(&r.oid, &r.name, &r.relname, &r.kind)
	})
	if err != nil {
		return fmt.Errorf("look up the partitions of %s: %w", table.name, err)
	}
	for _, m := range members {
		if m.kind == "f" {
			return fmt.Errorf("%s has %s, a foreign table, whose changes nobody sees", table.name, m.name)
		}
		w := byOID[m.oid]
		if w == nil {
			w = &watched{oid: m.oid, name: m.name, relname: m.relname}
			byOID[m.oid] = w
		}
		add(w)
	}
	return nil
}

// trim takes off what may end a statement but not a subquery.
func trim(sql string) string { return strings.TrimRight(sql, "; \t\r\n") }

// columns names the key's parts: k1, k2, ….
func columns(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("k%d", i+1)
	}
	return strings.Join(names, ", ")
}

func quoteAll(names []string) []string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = pgx.Identifier{name}.Sanitize()
	}
	return quoted
}
