package producers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/view"
)

// How often an examination is repeated that found views whose changes may go unnoticed:
// what mends that may lie where no shape shows it, such as a right.
const examineAgain = 15 * time.Second

// Watch notices drift for the price of a few look-ups in the catalogs: it compares
// the shape of what the views rest on with the one that it examined last, and
// examines again only where they differ. One goroutine may use it.
type Watch struct {
	views *view.Set
	wait  time.Duration // for a lock, while examining

	examined map[string]shape // by view
	drift    Drift
	failed   bool // the last examination came to no end
	at       time.Time
}

// NewWatch has examined nothing yet.
func NewWatch(views *view.Set) *Watch { return &Watch{views: views, wait: installWait} }

// Look examines the views where there is reason to, and reports whether it did.
func (w *Watch) Look(ctx context.Context, conn *pgx.Conn) (examined bool, err error) {
	var shapes map[string]shape
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// The planner cannot know how little there is to read: it would plan for longer
		// than that takes, and compile it.
		if _, err := tx.Exec(ctx, "SET LOCAL jit = off; SET LOCAL plan_cache_mode = force_generic_plan"); err != nil {
			return err
		}
		shapes, err = scanShapes(tx.Query(ctx, shapeSQL, w.args()...))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("look at tables and triggers: %w", err)
	}
	return w.consider(ctx, conn, shapes)
}

// Drift returns what the last examination found.
func (w *Watch) Drift() Drift { return w.drift }

// args are those of the shape statement.
func (w *Watch) args() []any { return shapeArgs(w.views, w.drift.objects) }

// changed returns the views that have another shape than the one examined.
func (w *Watch) changed(shapes map[string]shape) []string {
	var names []string
	for name, s := range shapes {
		if examined, ok := w.examined[name]; !ok || examined != s {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// consider is Look with shapes that were read just before. An examination that
// comes to no end is a finding too; the error is the connection's.
func (w *Watch) consider(ctx context.Context, conn *pgx.Conn, shapes map[string]shape) (examined bool, err error) {
	changed := w.changed(shapes)
	again := w.failed || w.drift.Unseen().Findings != nil && time.Since(w.at) >= examineAgain
	if changed == nil && !again {
		return false, nil
	}
	w.at = time.Now()
	drift, err := examine(ctx, conn, w.views, w.wait)
	if err != nil {
		if ctx.Err() != nil || conn.IsClosed() {
			return false, err
		}
		w.failed = true
		unsure := slices.Concat(changed, w.drift.Views())
		slices.Sort(unsure)
		w.drift.Findings = []Finding{{Views: slices.Compact(unsure), Why: "tables and triggers could not be examined: " + errors.Unwrap(err).Error(), Unseen: true}}
		return true, nil
	}
	w.examined = maps.Clone(shapes)
	for name := range shapes {
		if through, known := drift.objects[name]; known {
			w.examined[name] = shape{tables: shapes[name].tables, objects: textOf(through)}
		} else { // a load that cannot be read any more is mended where it was broken
			drift.objects[name] = w.drift.objects[name]
		}
	}
	w.failed, w.drift = false, drift
	return true, nil
}
