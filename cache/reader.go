package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/cache/view"
)

// ReaderOptions say how a reader behaves. The zero value is usable.
type ReaderOptions struct {
	Views     []*view.View          // whose entries may be kept in memory
	NearBytes int64                 // that those may take; 0: none are kept
	Metrics   prometheus.Registerer // nil: none
}

// Reader is how a process reads that answers many callers at once. What is read often
// it has in memory; what it must ask Redis for travels together; and it takes
// admissions of the limiter ahead for who comes often.
//
// An entry from memory is a Hit as one from Redis is, but for the moment that Redis's
// word of a write takes to come: some fractions of a millisecond, and never more than
// a second, after which without a sign of life nothing in memory is fresh. While Redis
// does not answer, what was kept is given as Stale, for as long as the store's StaleFor,
// and only what Redis has not called old as far as this process has heard, and what has an
// owner only to him (Query.Asker): others wait as if it were not there. The limiter admits
// callers by this process's own count then. That is so until this very reader is
// answered again: what it has kept outlives the return of Redis, until it is read anew.
//
// Every call ends within some two seconds.
type Reader struct {
	store      *Store
	near       *near // nil: none
	pipeline   *pipeline
	allowances *allowances
	running    atomic.Bool
	slow       slowness // for Soon
}

// NewReader makes a reader, which reads as its store does until Run. One of a store's
// readers may keep entries in memory.
func (s *Store) NewReader(o ReaderOptions) (*Reader, error) {
	if o.NearBytes < 0 {
		return nil, fmt.Errorf("cache: %d bytes for the near cache", o.NearBytes)
	}
	r := &Reader{store: s, allowances: newAllowances()}
	if o.NearBytes > 0 {
		r.near = newNear(s.keys, o.Views, o.NearBytes, s.peer.now)
		s.near.Store(r.near)
	}
	r.pipeline = newPipeline(s, r.allowances, r.near)
	if err := r.register(o.Metrics); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return r, nil
}

// Run works for those who read until the context ends. Call it once.
func (r *Reader) Run(ctx context.Context) error {
	var group sync.WaitGroup
	if r.near != nil {
		group.Go(func() {
			if err := (&nearLink{store: r.store, near: r.near}).run(ctx); err != nil {
				r.store.log.Error().Err(err).Msg("the near cache is off")
			}
		})
	}
	r.running.Store(true)
	r.pipeline.run(ctx)
	r.running.Store(false)
	group.Wait()
	return nil
}

// Read is Store.Read, in less time.
func (r *Reader) Read(ctx context.Context, q Query) (Result, error) {
	if !r.running.Load() {
		return r.direct(ctx, q)
	}
	var spare *Result // what to answer with should Redis not
	if r.near != nil {
		if old, whole := r.near.find(q.View.Name, q.Key); old != nil {
			if result, ok := r.hit(&q, old, whole); ok {
				r.near.hits.Add(1)
				err := r.admit(ctx, &q, &result)
				r.store.noteRead(&result, 0)
				return result, err
			}
			spare = r.spare(&q, old, whole)
		}
		r.near.passed.Add(1)
	}
	result, err := r.ask(ctx, &q, spare != nil)
	switch {
	case err == nil:
		return result, nil
	case errors.Is(err, errStopped):
		return r.direct(ctx, q)
	case ctx.Err() != nil:
		return Result{}, fmt.Errorf("read %s: %w", q.View.Name, err)
	}
	return r.readAlone(&q, spare, err)
}

// readAlone answers without Redis: with the spare where there is one, and with Redis's
// error where there is none. Who is over the limit hears that and nothing else, or the
// limit would tell what is kept.
func (r *Reader) readAlone(q *Query, spare *Result, err error) (Result, error) {
	result := Result{Entry: Entry{View: q.View.Name, Key: q.Key}, Now: r.store.peer.now()}
	if spare != nil {
		result = *spare
	}
	if q.Limit != nil {
		r.admitAlone(q, &result)
	}
	if spare == nil && result.Why != WhyLimited {
		return Result{}, fmt.Errorf("read %s: %w", q.View.Name, err)
	}
	r.store.noteRead(&result, 0)
	return result, nil
}

// direct reads through the store, in a bounded time.
func (r *Reader) direct(ctx context.Context, q Query) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	return r.store.Read(ctx, q)
}

// hit makes a Hit of what is in memory, where it is one.
func (r *Reader) hit(q *Query, old *kept, whole *knownView) (Result, bool) {
	s := r.store
	runID, now := s.peer.state()
	if !r.near.alive(old, whole, runID) {
		return Result{}, false
	}
	result := Result{Entry: Entry{View: q.View.Name, Key: q.Key}, Now: now, Near: true}
	s.weigh(&result, *q, &old.entry, old.run, whole.viewKey)
	if result.Status != Hit { // the same may do for others: it was the question that was special, or they miss as well
		return Result{}, false
	}
	result.Early = !q.View.Model && old.entry.early(now, draw())
	return result, true
}

// admit asks the limiter about who has been found an entry in memory.
func (r *Reader) admit(ctx context.Context, q *Query, result *Result) error {
	if q.Limit == nil {
		return nil
	}
	var ok bool
	if result.Admission, ok = r.allowances.take(q.Limit, time.Now()); ok {
		return nil
	}
	switch err := r.askLimiter(ctx, q, result, r.patience(aliveFor)); {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		r.admitAlone(q, result)
	}
	return nil
}

// askLimiter has Redis say whether who has been found an entry in memory is admitted.
func (r *Reader) askLimiter(ctx context.Context, q *Query, result *Result, patience time.Duration) error {
	one := r.pipeline.get()
	one.limit, one.limited = *q.Limit, true
	if err := r.send(ctx, one, patience); err != nil {
		return err
	}
	result.Admission = one.admission
	r.pipeline.free(one)
	refuse(result)
	return nil
}

// refuse makes the result of one who was not admitted.
func refuse(result *Result) {
	if !result.Admission.Allowed {
		*result = Result{Entry: Entry{View: result.Entry.View, Key: result.Entry.Key}, Why: WhyLimited, Admission: result.Admission, Now: result.Now}
	}
}

func (r *Reader) admitAlone(q *Query, result *Result) {
	result.Admission = r.allowances.alone(q.Limit, time.Now())
	result.Admission.Alone = true
	refuse(result)
}

// errAway says that Redis was not asked, since it seems to be away.
var errAway = errors.New("redis does not answer")

// patience is how long who can do without it waits for Redis: a moment, and not at
// all where others have waited as long.
func (r *Reader) patience(most time.Duration) time.Duration {
	if r.pipeline.ails(most) {
		return -1
	}
	return most
}

// send sends a reading. Unless all went well, it must not be used again.
func (r *Reader) send(ctx context.Context, one *reading, patience time.Duration) error {
	if patience < 0 {
		return errAway
	}
	if patience == 0 {
		return r.pipeline.ask(ctx, one, nil)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	return r.pipeline.ask(ctx, one, timer.C)
}

// spare makes a Stale answer of what is in memory, where it may be one; else nil. To who
// may not read it, it must be as if it were not there: also in how long Redis is waited for.
func (r *Reader) spare(q *Query, old *kept, whole *knownView) *Result {
	s := r.store
	e := &old.entry
	another := e.Owned && (q.Asker == "" || q.Asker != e.Owner)
	if q.View.Fresh || e.Negative || another || r.near.unproven(old) >= s.staleFor {
		return nil
	}
	result := &Result{Entry: Entry{View: q.View.Name, Key: q.Key}, Now: s.peer.now(), Near: true}
	s.weigh(result, *q, e, old.run, whole.viewKey)
	if result.Status == Miss {
		return nil
	}
	result.Status, result.Why = Stale, WhyAway
	return result
}

// Ready returns nil while the near cache, where there is one, hears of what is written
// to the Redis that is read.
func (r *Reader) Ready() error {
	if r.near == nil {
		return nil
	}
	switch now := r.near.era.Load(); {
	case now == nil:
		return errors.New("the near cache has no link")
	case now.runID != r.store.RunID():
		return errApart
	}
	return nil
}
