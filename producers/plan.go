package producers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mythiccache/cache/view"
)

// parameter is a key part in a view's load.
var parameter = regexp.MustCompile(`\$\d+`)

// plan is what the views ask of a database: triggers by table, in the order of
// their names.
type plan struct {
	tables  []*watched
	waiting []trouble           // views whose tables do not exist yet
	broken  []trouble           // views that cannot be kept true as they are
	objects map[string][]object // what each view reads its tables through
	path    string              // the search_path that all names were resolved by
}

// trouble is what keeps one view out of a plan, in a sentence.
type trouble struct {
	view string
	why  error
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
	types           []string // theirs
	distinct        bool     // equal values of the columns are the same, so each combination of them is read once
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

// share is what a mapping adds to a table and all that inherits from it.
type share struct {
	among []relation
	give  func(*watched)
}

// makePlan works out what the views ask for. It makes temporary views, and takes
// them back. Its error is what kept it from looking; what it saw is in the plan.
func makePlan(ctx context.Context, tx pgx.Tx, views *view.Set) (*plan, error) {
	path, err := searchPath(ctx, tx)
	if err != nil {
		return nil, err
	}
	p := &plan{path: path, objects: map[string][]object{}}
	byOID := map[uint32]*watched{}
	for _, v := range views.All() {
		if v.Model {
			continue
		}
		shares, err := p.shares(ctx, tx, v)
		switch {
		case err != nil && couldNotLook(ctx, tx.Conn(), err):
			return nil, fmt.Errorf("view %s: %w", v.Name, err)
		case err != nil:
			p.broken = append(p.broken, trouble{v.Name, fmt.Errorf("view %s: %w", v.Name, err)})
			continue
		}
		for _, s := range shares {
			for _, m := range s.among {
				if byOID[m.oid] == nil {
					byOID[m.oid] = &watched{oid: m.oid, name: m.name, relname: m.relname}
				}
				s.give(byOID[m.oid])
			}
		}
	}
	for _, w := range byOID {
		p.tables = append(p.tables, w)
	}
	slices.SortFunc(p.tables, func(a, b *watched) int { return strings.Compare(a.name, b.name) })
	return p, nil
}

// searchPath returns the schemas that names without one are looked for in.
func searchPath(ctx context.Context, tx pgx.Tx) (path string, err error) {
	const query = `SELECT coalesce(string_agg(quote_ident(s), ', ' ORDER BY n), '') FROM pg_catalog.unnest(current_schemas(false)) WITH ORDINALITY AS u(s, n) WHERE s NOT LIKE 'pg\_temp%'`
	if err := tx.QueryRow(ctx, query).Scan(&path); err != nil {
		return "", fmt.Errorf("read the search path: %w", err)
	}
	return path, nil
}

// couldNotLook tells what kept us from looking, and may not the next time, from
// what was seen: a lock that somebody holds, a server that stops.
func couldNotLook(ctx context.Context, conn *pgx.Conn, err error) bool {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return slices.Contains([]string{"08", "25", "40", "53", "55", "57", "58", "XX"}, refused.Code[:2])
	}
	return ctx.Err() != nil || conn.IsClosed()
}

// shares works out what one view asks for, or notes that it waits for tables. What
// it does to the transaction it undoes, whatever it comes to.
func (p *plan) shares(ctx context.Context, tx pgx.Tx, v *view.View) (shares []share, err error) {
	tx, err = tx.Begin(ctx) // a savepoint
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer func() { err = errors.Join(err, tx.Rollback(ctx)) }()
	tables, missing, err := tablesOf(ctx, tx, v)
	if err != nil {
		return nil, err
	}
	if missing != nil {
		p.waiting = append(p.waiting, trouble{v.Name, fmt.Errorf("view %s waits for tables that do not exist yet: %s", v.Name, strings.Join(missing, ", "))})
		return nil, nil
	}
	mapped := map[uint32]bool{}
	for _, m := range v.Tables {
		mapped[tables[m.Table].oid] = true
	}
	reads, through, err := readsOf(ctx, tx, "SELECT 1 AS one FROM (\n"+trim(parameter.ReplaceAllString(v.Load, "NULL"))+"\n) AS l", nil, 0)
	if err != nil {
		return nil, fmt.Errorf("its load: %w", err)
	}
	p.readsThrough(v.Name, through)
	if err := allMapped(ctx, tx, reads, mapped); err != nil {
		return nil, fmt.Errorf("its load %w", err)
	}
	for _, m := range v.Tables {
		among, err := family(ctx, tx, tables[m.Table])
		if err != nil {
			return nil, err
		}
		c, through, err := planCapture(ctx, tx, v, m, tables[m.Table], mapped)
		p.readsThrough(v.Name, through)
		if err != nil {
			return nil, fmt.Errorf("the mapping of %s (line %d): %w", m.Table, m.Line, err)
		}
		shares = append(shares, share{among, func(w *watched) { w.captures = append(w.captures, c) }})
	}
	for _, m := range v.Owners {
		among, err := family(ctx, tx, tables[m.Table])
		if err != nil {
			return nil, err
		}
		table := tables[m.Table]
		o := ownershipOf(v, m)
		_, through, err := readsOf(ctx, tx, "SELECT m.* FROM (\n"+o.sql+"\n) AS m ("+columns(o.parts)+", owner)", &table, o.parts+1)
		if err != nil {
			return nil, fmt.Errorf("the owners of %s (line %d): %w", m.Table, m.Line, err)
		}
		p.readsThrough(v.Name, through)
		shares = append(shares, share{among, func(w *watched) { w.owners = append(w.owners, o) }})
	}
	return shares, nil
}

// readsThrough notes what a view reads its tables through, each once.
func (p *plan) readsThrough(name string, through []object) {
	all := slices.Concat(p.objects[name], through)
	slices.SortFunc(all, func(a, b object) int { return cmp.Compare(a.oid, b.oid) })
	p.objects[name] = slices.Compact(all)
}

// tablesOf finds the tables that a view maps, and says which do not exist.
func tablesOf(ctx context.Context, tx pgx.Tx, v *view.View) (tables map[string]relation, missing []string, err error) {
	tables = map[string]relation{}
	for _, m := range slices.Concat(v.Tables, v.Owners) {
		r, err := lookUp(ctx, tx, m.Table)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			missing = append(missing, m.Table)
		case err != nil:
			return nil, nil, err
		}
		tables[m.Table] = r
	}
	slices.Sort(missing)
	return tables, slices.Compact(missing), nil
}

func captureOf(v *view.View, m view.Mapping, table relation) capture {
	return capture{view: v.Name, eventType: m.Topic() + ".changed", parts: len(v.Key), sql: trim(m.SQL), mapped: table.name, mappedOID: table.oid}
}

func ownershipOf(v *view.View, m view.Mapping) ownership {
	return ownership{view: v.Name, eventType: m.Topic() + ".changed", parts: len(v.Key), sql: trim(m.SQL)}
}

// planCapture checks one mapping and finds out whether it has to run twice.
func planCapture(ctx context.Context, tx pgx.Tx, v *view.View, m view.Mapping, table relation, mapped map[uint32]bool) (c capture, through []object, err error) {
	c = captureOf(v, m, table)
	reads, through, err := readsOf(ctx, tx, "SELECT m.* FROM (\n"+c.sql+"\n) AS m ("+columns(c.parts)+")", &table, c.parts)
	if err != nil {
		return c, nil, err
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
		return c, through, fmt.Errorf("it %w", err)
	}
	c.joined = others != nil
	if c.joined && len(c.columns) == 0 {
		return c, nil, errors.New("it joins, but names no column of changed to join by")
	}
	if len(c.columns) == 0 {
		return c, through, nil
	}
	distinct := "SELECT DISTINCT c." + strings.Join(quoteAll(c.columns), ", c.") + " FROM changed c"
	_, _, err = readsOf(ctx, tx, distinct, &table, len(c.columns))
	if err != nil && (c.joined || couldNotLook(ctx, tx.Conn(), err)) {
		return c, nil, fmt.Errorf("the columns it joins by: %w", err)
	}
	// Of a column whose equal values may be spelt differently (citext, numeric, a
	// collation that is not deterministic), DISTINCT would keep one spelling of two.
	const types = `SELECT array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY u.n),
			bool_and(coalesce(l.collisdeterministic, true) AND EXISTS (
				SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'
				JOIN pg_amproc p ON p.amprocfamily = o.opcfamily AND p.amproclefttype = o.opcintype AND p.amprocnum = 4
				WHERE o.opcdefault AND o.opcintype = CASE a.atttypid WHEN 'varchar'::regtype THEN 'text'::regtype ELSE a.atttypid END))
		FROM pg_catalog.unnest($2::text[]) WITH ORDINALITY AS u(name, n) JOIN pg_attribute a ON a.attrelid = $1 AND a.attname = u.name
		LEFT JOIN pg_collation l ON l.oid = a.attcollation`
	var same bool
	if lookErr := tx.QueryRow(ctx, types, table.oid, c.columns).Scan(&c.types, &same); lookErr != nil {
		return c, nil, fmt.Errorf("look up the types of its columns: %w", lookErr)
	}
	c.distinct = err == nil && same
	return c, through, nil
}

// lookUp finds a table by the name a views file gives it; pgx.ErrNoRows where
// there is none.
func lookUp(ctx context.Context, tx pgx.Tx, name string) (relation, error) {
	const query = `SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relname, c.relkind::text
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`
	var r relation
	err := tx.QueryRow(ctx, query, name).Scan(&r.oid, &r.name, &r.relname, &r.kind)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return r, pgx.ErrNoRows
	case err != nil:
		return r, fmt.Errorf("look up table %s: %w", name, err)
	case r.kind != "r" && r.kind != "p":
		return r, fmt.Errorf("%s is not a table: only a table's changes can be seen", name)
	}
	return r, nil
}

// family returns a table and all that inherits from it, partitions included: a
// statement fires the triggers of the table it names only.
func family(ctx context.Context, tx pgx.Tx, table relation) ([]relation, error) {
	const query = `WITH RECURSIVE down(oid) AS (SELECT $1::oid UNION SELECT i.inhrelid FROM down JOIN pg_inherits i ON i.inhparent = down.oid)
		SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relname,
			CASE WHEN EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = c.oid) THEN 'subscribed' ELSE c.relkind::text END
		FROM down JOIN pg_class c ON c.oid = down.oid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 2`
	rows, err := tx.Query(ctx, query, table.oid)
	if err != nil {
		return nil, fmt.Errorf("look up the partitions of %s: %w", table.name, err)
	}
	members, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r relation, err error) {
		return r, row.Scan(&r.oid, &r.name, &r.relname, &r.kind)
	})
	if err != nil {
		return nil, fmt.Errorf("look up the partitions of %s: %w", table.name, err)
	}
	for _, m := range members {
		switch m.kind {
		case "f":
			return nil, fmt.Errorf("%s has %s, a foreign table, whose changes nobody sees", table.name, m.name)
		case "subscribed":
			return nil, fmt.Errorf("%s is filled by a logical subscription, which fires no statement triggers", m.name)
		}
	}
	return members, nil
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
