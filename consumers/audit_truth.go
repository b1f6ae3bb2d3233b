package consumers

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

// audited is what a key of a view is, and what is on its way there, in one snapshot.
type audited struct {
	Loaded

	// The outbox holds a change of the key, of its whole view, or one whose keys are
	// yet to be found, that the entry has not seen and that is not in the streams yet.
	waiting bool
}

// unseen asks an audit for the changes that wait: those that neither the entry's
// snapshot has seen nor the one up to which all is in the streams, which is zero
// where that is not known. A change that was relayed and is in neither snapshot is
// found as long as it is in the outbox, and the retention is no shorter than an
// entry lives: a TTL and its time as STALE.
type unseen struct {
	entry, sent version.Snapshot
}

// audit reads what SQL says of a key, and beside it the changes that wait, where it
// is asked for them. It waits for its turn as a load does, but not for long.
func (l *Loader) audit(ctx context.Context, v *view.View, key string, of *unseen) (audited, error) {
	give, err := l.turns.take(ctx, v.Name, firstPatience)
	if err != nil {
		return audited{}, fmt.Errorf("audit %s: %w", v.Name, err)
	}
	defer give()
	found, err := l.auditAs(ctx, v, key, key, of)
	if badKey(err) {
		// As in load: no row can have such a key, and an entry that says so is right.
		found, err = l.auditAs(ctx, v, "", key, of)
	}
	if err != nil {
		return audited{}, fmt.Errorf("audit %s: %w", v.Name, err)
	}
	return found, nil
}

// auditAs loads one key, and looks in the same snapshot for changes of another that
// wait: the two differ where no row can have the key.
func (l *Loader) auditAs(ctx context.Context, v *view.View, load, key string, of *unseen) (found audited, err error) {
	queries := []query{loadOf(v, load, &found.Loaded)}
	if of != nil {
		queries = append(queries, of.query(v, key, &found.waiting))
	}
	return found, l.readLocked(ctx, v, queries...)
}

// query finds out whether something waits, by the index on xid: from the later of
// the two snapshots on there is little to read.
func (u unseen) query(v *view.View, key string, waiting *bool) query {
	nothing := version.Snapshot{Xmin: 1, Xmax: 1} // has been seen by it
	from, other := u.entry, u.sent
	if from.Xmax == 0 {
		from = nothing
		from.Epoch = other.Epoch
	}
	switch {
	case other.Epoch != from.Epoch, other.Xmax == 0:
		other = nothing
	case other.Version().Compare(from.Version()) > 0:
		from, other = other, from
	}
	return query{
		sql: `SELECT EXISTS (
			SELECT FROM mythic_cache.outbox o
			WHERE (o.xid >= pg_snapshot_xmax($3::text::pg_snapshot) OR o.xid = ANY (ARRAY(SELECT pg_snapshot_xip($3::text::pg_snapshot))))
				AND NOT pg_visible_in_snapshot(o.xid, $4::text::pg_snapshot)
				AND o.view = $1 AND (o.subject = $2 OR o.subject IS NULL OR o.joins IS NOT NULL))`,
		args: []any{v.Name, key, from.String(), other.String()},
		scan: func(rows pgx.Rows) error {
			_, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
				return struct{}{}, row.Scan(waiting)
			})
			return err
		},
	}
}

// readLocked runs queries in one REPEATABLE READ snapshot that is taken after the
// tables that the view reads are locked against being emptied. Without the locks:
//
//  1. the snapshot is taken;
//  2. somebody truncates a table, or writes it anew, and commits;
//  3. the load finds the new, empty file, and none of its rows in the old snapshot:
//     an emptiness that there never was.
//
// What a load reads past the catalogs' knowledge, in a function of another language
// than SQL, is not locked. SET LOCAL and LOCK take no snapshot, SELECT set_config
// would.
func (l *Loader) readLocked(ctx context.Context, v *view.View, queries ...query) error {
	batch := &pgx.Batch{}
	batch.Queue("BEGIN ISOLATION LEVEL " + repeatableRead + " READ ONLY")
	batch.Queue("SET LOCAL timezone = 'UTC'")
	batch.Queue("SET LOCAL datestyle = 'ISO'")
	batch.Queue("SET LOCAL statement_timeout = " + strconv.FormatInt(max(l.timeout.Milliseconds(), 1), 10))
	// Whoever waits for a lock has others wait behind it.
	batch.Queue("SET LOCAL lock_timeout = '1s'")
	if len(v.Tables) > 0 {
		tables := make([]string, len(v.Tables))
		for i, m := range v.Tables {
			tables[i] = m.Table
		}
		batch.Queue("LOCK TABLE " + strings.Join(tables, ", ") + " IN ACCESS SHARE MODE")
	}
	return l.within(ctx, batch, queries)
}
