package consumers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/view"
)

// AuditorOptions are the choices of an Auditor. Instance and Road are required.
type AuditorOptions struct {
	Instance string  // names the process
	Rate     float64 // loads a second, one for each look at an entry; 0: none
	Road     Road
	Settle   time.Duration // as in VerifyOptions
	Lease    time.Duration // how long a process that died is in the way of its successor; 15 s
	Log      zerolog.Logger
	Metrics  prometheus.Registerer // nil: none
}

// Auditor compares what is cached with PostgreSQL all the time, slowly: one process of
// all walks over the entries, looks again at those that differ, and tells those that
// are behind from those that are wrong. What is wrong is logged, counted and dropped.
//
// It knows what stands in Redis at the moment that it looks. An entry that was wrong
// and expired before its turn it never sees.
type Auditor struct {
	*examiner

	views    *view.Set
	o        AuditorOptions
	lease    *soleLease
	metrics  *auditMetrics
	walk     *walk
	suspects []*suspicion
	lately   bool // the last load was for a suspect
	unwell   bool // as was last logged
}

const (
	auditLease     = 15 * time.Second
	followedMost   = 64               // suspects at a time; when there are so many, the walk waits
	followedWithin = 10 * time.Second // and no more than loads in so long
	followedFor    = 2 * time.Minute  // after which a suspect counts as behind, and is met again by the next pass
	quickestStep   = 10 * time.Millisecond
	condemnFor     = 5 * time.Second
)

// NewAuditor makes an auditor of the views' entries in store.
func NewAuditor(store *cache.Store, loader *Loader, views *view.Set, o AuditorOptions) (*Auditor, error) {
	if o.Instance == "" || o.Road.Group == "" || o.Road.Sent == nil {
		return nil, errors.New("an auditor needs a name, and has to know how far changes have come")
	}
	if o.Rate < 0 {
		return nil, fmt.Errorf("an auditor cannot look at %g entries a second", o.Rate)
	}
	metrics, err := newAuditMetrics(o.Metrics)
	if err != nil {
		return nil, err
	}
	return &Auditor{
		examiner: &examiner{store: store, loader: loader, road: o.Road, settle: cmp.Or(o.Settle, defaultSettle)},
		views:    views, o: o, metrics: metrics,
	}, nil
}

// Run audits until the context ends, whenever it is this process's turn. It may be
// called once.
func (a *Auditor) Run(ctx context.Context) error {
	if a.o.Rate == 0 {
		return nil
	}
	for ctx.Err() == nil {
		a.report(ctx, a.turn(ctx))
		_ = sleep(ctx, idlePause)
	}
	if a.lease == nil {
		return nil
	}
	_ = a.lease.give(ctx) // else it runs out
	return nil
}

// report logs when auditing begins to fail and when it works again.
func (a *Auditor) report(ctx context.Context, err error) {
	if ctx.Err() == nil && (err != nil) != a.unwell {
		a.unwell = err != nil
		a.o.Log.Info().Err(err).Bool("working", !a.unwell).Msg("auditing the cache")
	}
}

// begin makes what needs Redis to be made.
func (a *Auditor) begin(ctx context.Context) (err error) {
	if a.walk != nil {
		return nil
	}
	if a.walk, err = newWalk(ctx, a.store, a.views); err != nil {
		return err
	}
	a.lease = &soleLease{
		client: a.store.Client(), name: a.walk.prefix + "audit", holder: a.o.Instance, life: cmp.Or(a.o.Lease, auditLease),
	}
	return nil
}

// turn audits for as long as it is this process's turn and nothing fails.
func (a *Auditor) turn(ctx context.Context) error {
	if err := a.begin(ctx); err != nil {
		return err
	}
	step := max(time.Duration(float64(time.Second)/a.o.Rate), quickestStep)
	walked, renewed := time.Now(), time.Time{}
	for {
		if time.Since(renewed) >= a.lease.life/3 {
			has, err := a.lease.take(ctx)
			if err != nil || !has {
				a.forget()
				return err
			}
			renewed = time.Now()
		}
		// What was missed while something took long is not made up for.
		if late := time.Since(walked); late >= step {
			walked = time.Now()
			for range max(int(a.o.Rate*min(late, 2*step).Seconds()), 1) {
				if err := a.load(ctx); err != nil {
					return err
				}
			}
		}
		if err := a.follow(ctx); err != nil {
			return err
		}
		a.report(ctx, nil)
		if err := sleep(ctx, max(min(time.Until(walked.Add(step)), a.rest()), time.Millisecond)); err != nil {
			return nil //nolint:nilerr // it is asked to end
		}
	}
}

// forget lets go of the suspects: whoever has the turn meets them again.
func (a *Auditor) forget() {
	a.suspects = nil
	a.metrics.suspects.Set(0)
}

// load looks at one entry with a load: at one of the suspects that ask for it and one that
// is next on the walk in turn, and at suspects alone when there are too many of them.
func (a *Auditor) load(ctx context.Context) error {
	full := len(a.suspects) >= min(max(int(followedWithin.Seconds()*a.o.Rate), 1), followedMost)
	s := a.asking()
	if a.lately = s != nil && (full || !a.lately); a.lately {
		return a.reconsider(ctx, s)
	}
	if full {
		return nil
	}
	return a.next(ctx)
}

// asking returns the suspect that has asked for a load for longest, nil for none.
func (a *Auditor) asking() (first *suspicion) {
	for _, s := range a.suspects {
		if s.asks && (first == nil || s.loaded.Before(first.loaded)) {
			first = s
		}
	}
	return first
}

// next looks at one entry more.
func (a *Auditor) next(ctx context.Context) error {
	p, end, err := a.walk.next(ctx)
	if end {
		a.metrics.passes.Inc()
	}
	if err != nil || p == nil || a.suspected(p) {
		return err
	}
	seen, err := a.look(ctx, p.view, p.key)
	switch {
	case errors.Is(err, errUnread):
		a.metrics.note(p.view.Name, Unread, time.Time{})
		a.o.Log.Debug().Err(err).Str("view", p.view.Name).Str("key", p.key).Msg("not audited")
	case err != nil:
		return err
	case seen.state == same:
		a.metrics.note(p.view.Name, Fresh, time.Time{})
	case seen.state == differs:
		a.suspects = append(a.suspects, a.suspect(p.view, p.key, seen))
		a.metrics.suspects.Set(float64(len(a.suspects)))
	}
	return nil
}

func (a *Auditor) suspected(p *place) bool {
	for _, s := range a.suspects {
		if s.view == p.view && s.Key == p.key {
			return true
		}
	}
	return false
}

// rest is how long no suspect wants to be looked at.
func (a *Auditor) rest() time.Duration {
	rest := time.Second
	for _, s := range a.suspects {
		rest = min(rest, time.Until(s.due))
	}
	return rest
}

// follow glances at the suspects whose time it is. Those that have to be looked at with a
// load wait for their turn.
func (a *Auditor) follow(ctx context.Context) error {
	for _, s := range slices.Clone(a.suspects) {
		if time.Until(s.due) > 0 {
			continue
		}
		_, final, err := a.glance(ctx, s)
		if err != nil {
			return err
		}
		if s.asks = true; final || time.Since(s.since) >= followedFor {
			a.acquit(s)
		}
	}
	return nil
}

// reconsider looks at a suspect with a load, and acts on a verdict.
func (a *Auditor) reconsider(ctx context.Context, s *suspicion) error {
	s.asks, s.loaded = false, time.Now()
	final, err := a.again(ctx, s)
	switch {
	case errors.Is(err, errUnread):
		return nil
	case err != nil || !final:
		return err
	case s.Verdict == Wrong:
		a.release(s)
		return a.condemn(ctx, s)
	}
	a.acquit(s)
	return nil
}

// acquit counts a suspect as behind.
func (a *Auditor) acquit(s *suspicion) {
	a.release(s)
	a.metrics.note(s.View, s.Verdict, s.since)
}

// release takes a suspect off the list.
func (a *Auditor) release(s *suspicion) {
	a.suspects = slices.DeleteFunc(a.suspects, func(other *suspicion) bool { return other == s })
	a.metrics.suspects.Set(float64(len(a.suspects)))
}

// condemn drops an entry that is wrong, and says so. A shutdown does not come between.
func (a *Auditor) condemn(ctx context.Context, s *suspicion) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), condemnFor)
	defer cancel()
	err := a.repair(ctx, s)
	a.tell(ctx, s, err == nil)
	a.metrics.note(s.View, s.Verdict, s.since)
	return err
}
