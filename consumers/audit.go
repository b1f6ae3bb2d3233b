package consumers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/view"
)

// AuditorOptions are the choices of an Auditor. Instance and Road are required.
type AuditorOptions struct {
	Instance string  // names the process
	Rate     float64 // entries a second; 0: none
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
	unwell   bool // as was last logged
}

const (
	auditLease   = 15 * time.Second
	followedMost = 64              // suspects at a time; meanwhile the walk waits
	followedFor  = 2 * time.Minute // after which a suspect counts as behind, and is met again by the next pass
	quickestStep = 10 * time.Millisecond
	condemnFor   = 5 * time.Second
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
		_ = wait(ctx, idlePause)
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
				if err := a.next(ctx); err != nil {
					return err
				}
			}
		}
		if err := a.follow(ctx); err != nil {
			return err
		}
		a.report(ctx, nil)
		if err := wait(ctx, max(min(time.Until(walked.Add(step)), a.rest()), time.Millisecond)); err != nil {
			return nil //nolint:nilerr // it is asked to end
		}
	}
}

// forget lets go of the suspects: whoever has the turn meets them again.
func (a *Auditor) forget() {
	a.suspects = nil
	a.metrics.suspects.Set(0)
}

// next looks at one entry more.
func (a *Auditor) next(ctx context.Context) error {
	if len(a.suspects) >= followedMost {
		return nil
	}
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
		a.metrics.checked.WithLabelValues(p.view.Name, unreadVerdict).Inc()
		a.o.Log.Debug().Err(err).Str("view", p.view.Name).Str("key", p.key).Msg("not audited")
	case err != nil:
		return err
	case seen.state == same:
		a.metrics.note(p.view.Name, Fresh, time.Time{})
	case seen.state == differs:
		a.suspects = append(a.suspects, a.suspect(p.view, p.key, seen))
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

// follow looks again at the suspects whose time it is.
func (a *Auditor) follow(ctx context.Context) (err error) {
	var left []*suspicion
	for _, s := range a.suspects {
		final := false
		if err == nil && time.Until(s.due) <= 0 {
			final, err = a.decide(ctx, s)
		}
		if !final {
			left = append(left, s)
		}
	}
	a.suspects = left
	a.metrics.suspects.Set(float64(len(left)))
	return err
}

// decide looks again at a suspect, acts on a verdict, and reports whether there is one.
func (a *Auditor) decide(ctx context.Context, s *suspicion) (final bool, err error) {
	final, err = a.again(ctx, s)
	if err != nil && !errors.Is(err, errUnread) {
		return false, err
	}
	if !final && time.Since(s.since) < followedFor {
		return false, nil
	}
	if s.Verdict == Wrong {
		return true, a.condemn(ctx, s)
	}
	a.metrics.note(s.View, s.Verdict, s.since)
	return true, nil
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
