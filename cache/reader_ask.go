package cache

import (
	"context"
	"errors"
	"time"
)

// askAgainAfter is how soon who has no spare asks again.
const askAgainAfter = 20 * time.Millisecond

// ask reads from Redis. Who has no spare asks again where Redis answers others:
//
//  1. a batch is sent to a Redis that is silent, over a connection that will not live;
//  2. Redis is back;
//  3. this one comes, and waits behind that batch;
//  4. the batch's time is over, and with it that of all who wait.
func (r *Reader) ask(ctx context.Context, q *Query, spare bool) (Result, error) {
	var patience time.Duration
	if spare {
		patience = r.patience(silentFor)
	}
	started := time.Now()
	var paid toll
	result, err := r.fetch(ctx, q, &paid, patience)
	for err != nil && !spare && r.passes(ctx, err, started) {
		select {
		case <-ctx.Done():
			return Result{}, ctx.Err()
		case <-time.After(askAgainAfter):
		}
		result, err = r.fetch(ctx, q, &paid, max(batchTimeout-time.Since(started), askAgainAfter))
	}
	if err != nil {
		r.giveBack(ctx, q, &paid)
		return Result{}, err
	}
	r.store.noteRead(&result, r.store.observe("read", started))
	return result, nil
}

// passes reports whether the error of who has asked since then is one that passes: Redis
// has answered what was sent later, or the link hears of it, and there is time left.
func (r *Reader) passes(ctx context.Context, err error, since time.Time) bool {
	switch {
	case ctx.Err() != nil || !ofConnection(err) || errors.Is(err, errStopped) || errors.Is(err, ErrBusy):
		return false
	case time.Since(since) >= batchTimeout:
		return false
	}
	return r.pipeline.answers(since) || r.near != nil && r.near.linked()
}

// toll is what a request has paid to its Limit: once, however often Redis is asked.
type toll struct {
	admission Admission
	ahead     time.Time // when that was one of those taken ahead; zero: it was not
	unheard   bool      // Redis may have counted it, and has not been heard to say so
}

// fetch has the pipeline bring an entry, and judges it.
func (r *Reader) fetch(ctx context.Context, q *Query, paid *toll, patience time.Duration) (Result, error) {
	one := r.pipeline.get()
	one.view, one.key, one.looks = q.View.Name, q.Key, true
	limited := q.Limit != nil && paid.ahead.IsZero() && !paid.unheard
	if now := time.Now(); limited {
		var ok bool
		if paid.admission, ok = r.allowances.take(q.Limit, now); ok {
			paid.ahead, limited = now, false
		} else {
			one.limit, one.limited = *q.Limit, true
		}
	}
	if err := r.send(ctx, one, patience); err != nil {
		paid.unheard = paid.unheard || limited && !isUncounted(err)
		return Result{}, err
	}
	defer r.pipeline.free(one)
	switch {
	case limited:
		paid.admission = one.admission
	case paid.unheard: // to be asked again it would count again
		paid.admission = r.allowances.alone(q.Limit, time.Now())
	}
	s := r.store
	result := Result{Entry: Entry{View: q.View.Name, Key: q.Key}, Admission: paid.admission, Now: s.peer.now()}
	if q.Limit != nil && !paid.admission.Allowed {
		refuse(&result)
	} else {
		s.judgeEntry(&result, *q, one.look)
		result.Early = result.Status == Hit && !q.View.Model && result.Entry.early(result.Now, draw())
	}
	return result, nil
}

// giveBack gives back what was taken ahead for a request that was not answered. Who hangs
// up has had Redis asked, and pays.
func (r *Reader) giveBack(ctx context.Context, q *Query, paid *toll) {
	if !paid.ahead.IsZero() && ctx.Err() == nil {
		r.allowances.back(q.Limit, paid.ahead, time.Now())
	}
}
