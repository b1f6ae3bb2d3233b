package producers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/view"
)

// Drift is how the triggers and the tables below them differ from what the views
// ask for.
type Drift struct {
	Findings []Finding

	objects map[string][]object // what the views read through, as it was at the time
}

// Finding is one thing that Install would change or refuse.
type Finding struct {
	Views  []string // of the set, that it concerns
	Why    string   // a sentence
	Unseen bool     // changes may go unnoticed; else only too much is watched
}

// Err returns all findings in one, or nil.
func (d Drift) Err() error {
	var all []error
	for _, f := range d.Findings {
		all = append(all, errors.New(f.Why))
	}
	return errors.Join(all...)
}

// Unseen returns the findings through which changes may go unnoticed.
func (d Drift) Unseen() Drift {
	var unseen []Finding
	for _, f := range d.Findings {
		if f.Unseen {
			unseen = append(unseen, f)
		}
	}
	return Drift{Findings: unseen, objects: d.objects}
}

// Views returns the names of the views that the findings concern, sorted.
func (d Drift) Views() []string {
	var names []string
	for _, f := range d.Findings {
		names = append(names, f.Views...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Examine compares the triggers with the views, as Install would: other views, a
// replaced table, a new partition, a disabled trigger, a column gone. It changes
// nothing, and waits for five seconds at most for a table that somebody has locked.
func Examine(ctx context.Context, conn *pgx.Conn, views *view.Set) (Drift, error) {
	return examine(ctx, conn, views, installWait)
}

func examine(ctx context.Context, conn *pgx.Conn, views *view.Set, wait time.Duration) (Drift, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return Drift{}, fmt.Errorf("compare triggers with views: %w", err)
	}
	defer tx.Rollback(ctx) // it changed nothing
	if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", wait.Milliseconds())); err != nil {
		return Drift{}, fmt.Errorf("compare triggers with views: %w", err)
	}
	p, there, err := compare(ctx, tx, views)
	if err != nil {
		return Drift{}, fmt.Errorf("compare triggers with views: %w", err)
	}
	return p.drift(there, views), nil
}

// drift says how what is there differs from the plan. Of a table that a view in
// trouble shares nobody can tell what ought to be there; such a view is a finding
// by itself.
func (p *plan) drift(there map[uint32]footprint, views *view.Set) Drift {
	d := Drift{objects: p.objects}
	find := func(unseen bool, of []string, why string, args ...any) {
		known := slices.DeleteFunc(slices.Clone(of), func(name string) bool { _, ok := views.Lookup(name); return !ok })
		slices.Sort(known)
		d.Findings = append(d.Findings, Finding{Views: slices.Compact(known), Why: fmt.Sprintf(why, args...), Unseen: unseen})
	}
	var troubled []string
	for _, t := range slices.Concat(p.broken, p.waiting) {
		find(true, []string{t.view}, "%s", t.why)
		troubled = append(troubled, t.view)
	}
	shared := func(f footprint) bool {
		return slices.ContainsFunc(f.views, func(name string) bool { return slices.Contains(troubled, name) })
	}
	for _, w := range p.tables {
		statements, _ := w.statements(p.path)
		old, ok := there[w.oid]
		concerned := slices.Concat(w.views(), old.views)
		switch {
		case !ok:
			find(true, concerned, "%s is not watched", w.name)
		case !old.whole:
			find(true, concerned, "%s lacks triggers, or has disabled ones", w.name)
		case old.hash != hashOf(statements) && !shared(old):
			find(true, concerned, "%s is watched for other views than these", w.name)
		}
	}
	for _, left := range p.abandoned(there) {
		if !shared(left) {
			find(false, left.views, "%s is watched, but no view maps it", left.name)
		}
	}
	return d
}

// refusal returns why the plan cannot be carried out, or nil.
func (p *plan) refusal() error {
	var all []error
	for _, t := range p.broken {
		all = append(all, t.why)
	}
	return errors.Join(all...)
}
