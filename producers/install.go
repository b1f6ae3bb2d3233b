package producers

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/view"
)

// installLock is held by one installation at a time.
const installLock = 0x6d7974686963_02

// footprint is what is installed on one table.
type footprint struct {
	relation  uint32
	name      string
	views     []string
	functions []string
	hash      string
	whole     bool // all triggers are there and enabled
}

// How long an installation waits for the lock on a table, and may so make the
// table's writers queue behind it: one that was asked for, and one that nobody
// asked for and that comes again.
const (
	installWait = 5 * time.Second
	mendWait    = 50 * time.Millisecond
)

// Install brings the triggers on the app's tables in line with the views and
// returns, a sentence each, what it changed and what has to wait for tables that
// do not exist yet. Table names are resolved by the connection's search_path,
// which the triggers keep. A view whose load or mapping reads a table that it
// does not map is refused, and nothing is changed. What is as it should be is not
// touched, and so not locked. A view is invalidated as a whole where Install
// touches a table of its: what was changed there before went unnoticed.
func Install(ctx context.Context, conn *pgx.Conn, views *view.Set) (installed []string, err error) {
	err = inTransaction(ctx, conn, installWait, func(tx pgx.Tx) error {
		installed, err = install(ctx, tx, views, false)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("install triggers: %w", err)
	}
	return installed, nil
}

// ErrOthersViews says that somebody has installed triggers for other views, or
// with another release of this program, since.
var ErrOthersViews = errors.New("the triggers were installed for other views, or by another release: `mythic-cache migrate up` installs these")

// Mend is an Install that nobody asked for: it waits for no lock longer than 50 ms,
// and leaves alone what others installed with ErrOthersViews. Two releases side by
// side would else undo each other's work without end.
func Mend(ctx context.Context, conn *pgx.Conn, views *view.Set) (installed []string, err error) {
	err = inTransaction(ctx, conn, mendWait, func(tx pgx.Tx) error {
		installed, err = install(ctx, tx, views, true)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("mend triggers: %w", err)
	}
	return installed, nil
}

func install(ctx context.Context, tx pgx.Tx, views *view.Set, oursAlone bool) (installed []string, err error) {
	p, there, err := compare(ctx, tx, views)
	if err != nil {
		return nil, err
	}
	if err := p.refusal(); err != nil {
		return nil, err
	}
	if err := noteGeneration(ctx, tx, generation(views, p.path), oursAlone); err != nil {
		return nil, err
	}
	behind := p.behind(there)
	// Owners of rows from before the triggers. First of all, so that it is no
	// event for each. Of a row that comes after this and before the triggers stand,
	// the owner is remembered when its key or owner changes, or it goes.
	for _, w := range behind {
		if err := w.rememberOwners(ctx, tx); err != nil {
			return nil, err
		}
	}
	var concerned []string
	for _, w := range behind {
		if err := w.install(ctx, tx, p.path, there[w.oid].functions); err != nil {
			return nil, fmt.Errorf("watch %s: %w", w.name, err)
		}
		installed = append(installed, fmt.Sprintf("%s is watched for %s", w.name, strings.Join(w.views(), ", ")))
		concerned = slices.Concat(concerned, w.views(), there[w.oid].views)
	}
	for _, left := range p.abandoned(there) {
		if err := left.remove(ctx, tx); err != nil {
			return nil, err
		}
		installed = append(installed, left.name+" is no longer watched")
		concerned = append(concerned, left.views...)
	}
	if err := fenceInstalled(ctx, tx, views, concerned); err != nil {
		return nil, err
	}
	for _, t := range p.waiting {
		if !oursAlone { // who asked for it is told what else it takes
			installed = append(installed, t.why.Error())
		}
	}
	slices.Sort(installed)
	return installed, nil
}

// fenceInstalled has views invalidated as a whole. It comes last: now the triggers
// hold their tables' locks, so whoever changed something without a trigger has
// committed, and the relay sees that before it sees this row.
func fenceInstalled(ctx context.Context, tx pgx.Tx, views *view.Set, concerned []string) error {
	var names, types []string
	for _, v := range views.All() {
		if slices.Contains(concerned, v.Name) && len(v.Tables) > 0 {
			names, types = append(names, v.Name), append(types, v.Tables[0].Topic()+".changed")
		}
	}
	if names == nil {
		return nil
	}
	const fence = `INSERT INTO mythic_cache.outbox (type, view, data) SELECT u.type, u.view, $3::jsonb FROM unnest($1::text[], $2::text[]) AS u(type, view)`
	if _, err := tx.Exec(ctx, fence, types, names, whyInstalled); err != nil {
		return fmt.Errorf("invalidate views: %w", err)
	}
	if _, err := tx.Exec(ctx, "SELECT mythic_cache.ring()"); err != nil {
		return fmt.Errorf("ring for the relay: %w", err)
	}
	return nil
}

// whyInstalled is in the outbox's data of a view that Install has invalidated.
const whyInstalled = `{"installed": true}`

// generation tells installations apart that would not do the same to the same
// tables: by the views, the search_path, and the text that this release generates.
func generation(views *view.Set, path string) string {
	var all []string
	for _, v := range views.All() {
		for _, m := range v.Tables {
			c := captureOf(v, m, relation{name: m.Table})
			joined := c
			joined.columns, joined.types, joined.distinct, joined.joined = []string{"a"}, []string{"text"}, true, true
			w := watched{name: m.Table, relname: m.Topic(), captures: []capture{c, joined}}
			statements, _ := w.statements(path)
			all = append(all, statements...)
		}
		for _, m := range v.Owners {
			w := watched{name: m.Table, relname: m.Topic(), owners: []ownership{ownershipOf(v, m)}}
			statements, _ := w.statements(path)
			all = append(all, statements...)
		}
	}
	return hashOf(all)
}

// Installed reports whether it was for these views, and by this release, that the
// triggers were last installed. What drifts nevertheless, somebody did to the tables.
func Installed(ctx context.Context, conn *pgx.Conn, views *view.Set) (same bool, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		path, err := searchPath(ctx, tx)
		if err != nil {
			return err
		}
		same, err = isNoted(ctx, tx, generation(views, path))
		return err
	})
	return same, err
}

func isNoted(ctx context.Context, tx pgx.Tx, generation string) (same bool, err error) {
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM mythic_cache.installation WHERE generation = $1)", generation).Scan(&same); err != nil {
		return false, fmt.Errorf("read who installed last: %w", err)
	}
	return same, nil
}

func noteGeneration(ctx context.Context, tx pgx.Tx, generation string, oursAlone bool) error {
	if oursAlone {
		same, err := isNoted(ctx, tx, generation)
		if err != nil {
			return err
		}
		if !same {
			return ErrOthersViews
		}
		return nil
	}
	const note = `INSERT INTO mythic_cache.installation (generation) VALUES ($1)
		ON CONFLICT (only_row) DO UPDATE SET generation = excluded.generation, at = clock_timestamp()`
	if _, err := tx.Exec(ctx, note, generation); err != nil {
		return fmt.Errorf("note who installed: %w", err)
	}
	return nil
}

// Uninstall takes our triggers off every table.
func Uninstall(ctx context.Context, conn *pgx.Conn) error {
	err := inTransaction(ctx, conn, installWait, func(tx pgx.Tx) error {
		there, err := footprints(ctx, tx)
		if err != nil {
			return err
		}
		for _, f := range there {
			if err := f.remove(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("uninstall triggers: %w", err)
	}
	return nil
}

// compare plans the views and reads what is installed.
func compare(ctx context.Context, tx pgx.Tx, views *view.Set) (*plan, map[uint32]footprint, error) {
	p, err := makePlan(ctx, tx, views)
	if err != nil {
		return nil, nil, err
	}
	there, err := footprints(ctx, tx)
	return p, there, err
}

// behind returns the tables on which something else is installed than the plan
// says, or nothing.
func (p *plan) behind(there map[uint32]footprint) []*watched {
	var behind []*watched
	for _, w := range p.tables {
		statements, _ := w.statements(p.path)
		if old, ok := there[w.oid]; !ok || !old.whole || old.hash != hashOf(statements) {
			behind = append(behind, w)
		}
	}
	return behind
}

// abandoned returns what is installed on tables that the plan does not name.
func (p *plan) abandoned(there map[uint32]footprint) []footprint {
	left := maps.Clone(there)
	for _, w := range p.tables {
		delete(left, w.oid)
	}
	return slices.Collect(maps.Values(left))
}

func footprints(ctx context.Context, tx pgx.Tx) (map[uint32]footprint, error) {
	const query = `SELECT t.relation, t.name, t.views, t.functions, t.hash,
			(SELECT count(*) FROM pg_trigger g JOIN pg_proc f ON f.oid = g.tgfoid
			 WHERE g.tgrelid = t.relation AND NOT g.tgisinternal AND g.tgname LIKE 'mythic\_cache\_%'
			   AND g.tgenabled IN ('O', 'A') AND f.proname::text = ANY (t.functions)) = 4
		FROM mythic_cache.triggers t`
	rows, err := tx.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read what is installed: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f footprint, err error) {
		return f, row.Scan(&f.relation, &f.name, &f.views, &f.functions, &f.hash, &f.whole)
	})
	if err != nil {
		return nil, fmt.Errorf("read what is installed: %w", err)
	}
	byOID := make(map[uint32]footprint, len(all))
	for _, f := range all {
		byOID[f.relation] = f
	}
	return byOID, nil
}

// rememberOwners notes the owners of the rows that the table has.
func (w *watched) rememberOwners(ctx context.Context, tx pgx.Tx) error {
	for _, o := range w.owners {
		if _, err := tx.Exec(ctx, o.backfillSQL(w.name)); err != nil {
			return fmt.Errorf("remember the owners of view %s: %w", o.view, err)
		}
	}
	return nil
}

// install makes functions and triggers and drops the old functions that they
// replace.
func (w *watched) install(ctx context.Context, tx pgx.Tx, path string, old []string) error {
	statements, functions := w.statements(path)
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	gone := slices.DeleteFunc(slices.Clone(old), func(name string) bool { return slices.Contains(functions, name) })
	if err := dropFunctions(ctx, tx, gone); err != nil {
		return err
	}
	const note = `INSERT INTO mythic_cache.triggers (relation, name, views, functions, hash) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (relation) DO UPDATE SET name = excluded.name, views = excluded.views, functions = excluded.functions, hash = excluded.hash, installed = clock_timestamp()`
	if _, err := tx.Exec(ctx, note, w.oid, w.name, w.views(), functions, hashOf(statements)); err != nil {
		return fmt.Errorf("note what is installed: %w", err)
	}
	return nil
}

func (o ownership) backfillSQL(table string) string {
	return fmt.Sprintf(`WITH changed AS (SELECT * FROM %s)
INSERT INTO mythic_cache.owners (view, key, owner)
SELECT DISTINCT ON (m.key) %s, m.key, coalesce(m.owner, '') FROM (SELECT %s COLLATE "C" AS key, m.owner::text AS owner FROM (
%s
) AS m (%s, owner)) AS m WHERE m.key <> '' AND octet_length(m.key) <= 512
ON CONFLICT DO NOTHING`, table, literal(o.view), keyOf(o.parts), o.sql, columns(o.parts))
}

// remove drops the functions, and with them the triggers that call them.
func (f footprint) remove(ctx context.Context, tx pgx.Tx) error {
	if err := dropFunctions(ctx, tx, f.functions); err != nil {
		return fmt.Errorf("stop watching %s: %w", f.name, err)
	}
	if _, err := tx.Exec(ctx, "DELETE FROM mythic_cache.triggers WHERE relation = $1", f.relation); err != nil {
		return fmt.Errorf("stop watching %s: %w", f.name, err)
	}
	return nil
}

// dropFunctions leaves those alone that another table still uses: partitions
// share the function that maps again.
func dropFunctions(ctx context.Context, tx pgx.Tx, names []string) error {
	for _, name := range names {
		const shared = "SELECT count(*) > 1 FROM mythic_cache.triggers WHERE $1 = ANY (functions)"
		var keep bool
		if err := tx.QueryRow(ctx, shared, name).Scan(&keep); err != nil {
			return fmt.Errorf("look who uses %s: %w", name, err)
		}
		if keep {
			continue
		}
		if _, err := tx.Exec(ctx, "DROP FUNCTION IF EXISTS mythic_cache."+ident(name)+" CASCADE"); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
	}
	return nil
}

func (w *watched) views() []string {
	var names []string
	for _, c := range w.captures {
		names = append(names, c.view)
	}
	for _, o := range w.owners {
		names = append(names, o.view)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func hashOf(statements []string) string {
	sum := sha256.Sum256([]byte(strings.Join(statements, "\n;\n")))
	return hex.EncodeToString(sum[:])
}

// inTransaction runs do alone among installations, with a bound on how long a
// table's writers can be made to queue behind a lock that we wait for.
func inTransaction(ctx context.Context, conn *pgx.Conn, wait time.Duration, do func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(installLock)); err != nil {
			return fmt.Errorf("wait for another installation: %w", err)
		}
		// Times are told as in loads: the keys of owners are made here, too.
		settings := fmt.Sprintf("SET LOCAL lock_timeout = %d; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'", wait.Milliseconds())
		if _, err := tx.Exec(ctx, settings); err != nil {
			return fmt.Errorf("bound the wait for locks: %w", err)
		}
		return do(tx)
	})
}

// uninstallAll is Uninstall beside goose, which speaks database/sql.
func uninstallAll(ctx context.Context, db *sql.DB) error {
	const all = `DO $$
	DECLARE f regprocedure;
	BEGIN
	  IF to_regclass('mythic_cache.triggers') IS NULL THEN RETURN; END IF;
	  FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'mythic_cache'::regnamespace
	    AND EXISTS (SELECT FROM mythic_cache.triggers t WHERE p.proname::text = ANY (t.functions))
	  LOOP
	    EXECUTE 'DROP FUNCTION ' || f || ' CASCADE';
	  END LOOP;
	  DELETE FROM mythic_cache.triggers;
	END $$`
	if _, err := db.ExecContext(ctx, all); err != nil {
		return fmt.Errorf("take off the triggers: %w", err)
	}
	return nil
}
