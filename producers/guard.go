package producers

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"mythiccache/cache/version"
)

// guard fences, at a snapshot of now, each view whose shape is another than it was
// last fenced at, and each whose changes may go unnoticed, until they may not:
//
//  1. a table of the view is changed, and a row of it that no trigger sees;
//  2. a load reads the entry before that, and it is stored;
//  3. the shape is read, and then the snapshot: it has seen both of 1.
//
// So nothing is served as fresh that is older than a heartbeat. A relay that dies
// before it has noted the shape leaves it to the next.
//
// It returns what Redis has noted of fences, and the run_id of before it fenced, which
// is the only run that may be confirmed:
//
//  1. the shapes are read from Redis, and nothing is due;
//  2. Redis is restarted and loses its last fence and the note of it, not the position;
//  3. whoever finds the position would confirm the new run, which lacks the fence.
func (l *lead) guard(ctx context.Context, shapes map[string]shape, at version.Version) (fencings, error) {
	if len(shapes) == 0 {
		return l.streams.Fenced(ctx, nil)
	}
	unseen := l.relay.watch.Drift().Unseen().Views() // of these, until this moment, or still
	examined, err := l.relay.watch.consider(ctx, l.conn, shapes)
	if err != nil {
		return fencings{}, err
	}
	if examined {
		l.relay.report(l.relay.watch.Drift())
	}
	views := slices.Sorted(maps.Keys(shapes))
	last, err := l.streams.Fenced(ctx, views)
	if err != nil {
		return fencings{}, err
	}
	unseen = append(unseen, l.relay.watch.Drift().Unseen().Views()...)
	anew := map[string]shape{}
	var due []string
	for _, name := range views {
		if s, ok := l.relay.watch.examined[name]; ok && last.shapes[name] != s.String() {
			anew[name] = s
			due = append(due, name)
		} else if slices.Contains(unseen, name) {
			due = append(due, name)
		}
	}
	if due == nil {
		return last, nil
	}
	if examined { // since then more may have been changed
		now, err := readPresent(ctx, l.conn)
		if err != nil {
			return fencings{}, err
		}
		if now.epoch != l.placed.epoch {
			return fencings{}, fmt.Errorf("%w from %d to %d", errEpoch, l.placed.epoch, now.epoch)
		}
		at = now.snapshot.Version()
	}
	if err := l.relay.o.Fences.FenceViews(ctx, due, at); err != nil {
		return fencings{}, fmt.Errorf("fence views: %w", err)
	}
	for _, name := range due {
		l.relay.metrics.viewFences.WithLabelValues(name).Inc()
	}
	if len(anew) == 0 {
		return last, nil
	}
	for name, s := range anew {
		last.shapes[name] = s.String()
	}
	return last, l.streams.NoteFenced(ctx, l.placed, last.run, anew)
}

// report tells what has changed since the last examination, and measures what is.
func (r *Relay) report(d Drift) {
	now := map[string]bool{}
	for _, f := range d.Findings {
		now[f.Why] = true
		switch {
		case r.told[f.Why]:
		case f.Unseen:
			r.o.Log.Warn().Strs("views", f.Views).Str("why", f.Why).Msg("changes may go unnoticed, so whole views are invalidated each second")
		default:
			r.o.Log.Warn().Strs("views", f.Views).Str("why", f.Why).Msg("more is watched than the views ask for")
		}
	}
	for why := range r.told {
		if !now[why] {
			r.o.Log.Info().Str("was", why).Msg("drift is over")
		}
	}
	r.told = now
	r.set(func(s *RelayState) { s.Drift = d })
	unseen := d.Unseen().Views()
	for _, v := range r.o.Views.All() {
		if v.Model {
			continue
		}
		drifted := 0.0
		if slices.Contains(unseen, v.Name) {
			drifted = 1
		}
		r.metrics.drifted.WithLabelValues(v.Name).Set(drifted)
	}
}
