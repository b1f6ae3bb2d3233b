package cache

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// ErrBusy says that more reads wait for Redis than a process holds.
var ErrBusy = errors.New("too many reads wait for redis")

// The bounds of the pipeline. A batch has room for all that gathers while the last
// ones are on their way.
const (
	pipelineBatches = 2       // on their way at once, each with a connection
	batchMost       = 256     // reads in one
	queueMost       = 4 << 10 // reads that wait
	batchTimeout    = 2 * time.Second
)

// pipeline sends the reads that happen at the same time together. Whoever comes while
// a batch is free is sent at once; the others gather until one is back, and so share
// the way, the view's key, the limiter's script, and where they ask for the same
// entry, that as well. Nobody is answered by a read that was sent before it asked.
type pipeline struct {
	store      *Store
	allowances *allowances
	near       *near // nil: none
	queue      chan *reading
	stopped    chan struct{}

	workers  [pipelineBatches]struct{ since atomic.Int64 } // when the batch that is on its way was sent; 0: none is
	answered atomic.Int64                                  // when the newest batch was sent that has been answered
	failed   atomic.Int64                                  // when the last batch failed; 0: it did not
	began    time.Time                                     // what those count from
	pool     sync.Pool
	refusal  refusal // of Redis to run the limiter

	batches, batched atomic.Uint64
}

// reading is a caller on the way to Redis.
type reading struct {
	view, key string
	looks     bool // at the entry; else it is the limiter alone that is asked
	limit     Limit
	limited   bool      // the limiter is asked for it
	ahead     time.Time // or by then it was admitted by what was taken ahead meanwhile

	done      chan struct{} // receives once all below stands
	admission Admission
	look      *look
	err       error
}

// look is what one batch found under one key.
type look struct {
	entry  Entry
	header header
	err    error // errCorrupt: nothing that counts
	whole  viewKey
	known  bool   // whether the view has a key
	whose  []byte // the name of the connection over which it came: see signedBy; good until all are answered
}

func newPipeline(s *Store, a *allowances, n *near) *pipeline {
	p := &pipeline{
		store: s, allowances: a, near: n, queue: make(chan *reading, queueMost), stopped: make(chan struct{}), began: time.Now(),
	}
	return p
}

// run works until the context ends. Whoever waits then is told errStopped.
func (p *pipeline) run(ctx context.Context) {
	var group sync.WaitGroup
	for i := range p.workers {
		group.Go(func() { p.work(ctx, i) })
	}
	<-ctx.Done()
	close(p.stopped)
	group.Wait()
}

// errStopped says that the pipeline carries nothing, or no more.
var errStopped = errors.New("the reader does not run")

// ask sends a reading and waits for it. Of the reading only what was found may be
// used after the next call of free.
func (p *pipeline) ask(ctx context.Context, r *reading, patience <-chan time.Time) error {
	select {
	case <-p.stopped:
		return errStopped
	default:
	}
	select {
	case p.queue <- r:
	default:
		return ErrBusy
	}
	select {
	case <-r.done:
		return r.err
	case <-p.stopped:
		return errStopped
	case <-patience:
		return errImpatient
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errImpatient says that something older will do by now.
var errImpatient = errors.New("redis did not answer at once")

// get returns an empty reading; free takes back one that ask has answered, not one
// that may still be in a batch.
func (p *pipeline) get() *reading {
	if r, used := p.pool.Get().(*reading); used {
		return r
	}
	return &reading{done: make(chan struct{}, 1)}
}

func (p *pipeline) free(r *reading) {
	*r = reading{done: r.done}
	p.pool.Put(r)
}

// work sends one batch after the other.
func (p *pipeline) work(ctx context.Context, worker int) {
	b := newBatch(p)
	bounded := newDeadline(context.WithoutCancel(ctx))
	since := &p.workers[worker].since
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-p.queue:
			b.add(r)
		}
		// Whoever is about to ask may do so: where nobody is, this takes no time.
		runtime.Gosched()
		p.gather(b)
		sent := int64(time.Since(p.began)) | 1
		since.Store(sent)
		bounded = bounded.next(batchTimeout)
		err := b.run(bounded) //nolint:contextcheck // what is on its way outlasts ctx, and carries its values
		if err != nil && bounded.Err() != nil && p.answered.Load() < sent {
			p.abandon(err) // they have waited nearly as long
		}
		bounded.end()
		since.Store(0)
		p.note(err, sent)
		p.batches.Add(1)
		p.batched.Add(uint64(len(b.readings)))
		b.answer(err)
		b.reset()
	}
}

// gather takes in what waits.
func (p *pipeline) gather(b *batch) {
	for len(b.readings) < batchMost {
		select {
		case r := <-p.queue:
			b.add(r)
		default:
			return
		}
	}
}

// abandon fails what waits now.
func (p *pipeline) abandon(err error) {
	for range len(p.queue) {
		select {
		case r := <-p.queue:
			r.err = uncounted{err}
			r.done <- struct{}{}
		default:
			return
		}
	}
}

// uncounted is the error of a reading that Redis cannot have counted against its limit.
type uncounted struct{ error }

func (e uncounted) Unwrap() error { return e.error }

func isUncounted(err error) bool {
	var e uncounted
	return errors.As(err, &e)
}

// note keeps whether Redis answers. What was sent before something that has been answered
// says nothing of that: it was sent into a silence that is over, or its connection is bad.
func (p *pipeline) note(err error, sent int64) {
	switch {
	case err == nil:
		for was := p.answered.Load(); was < sent; was = p.answered.Load() {
			if p.answered.CompareAndSwap(was, sent) {
				break
			}
		}
		if p.failed.Load() != 0 {
			p.failed.Store(0)
		}
	case p.answered.Load() < sent:
		p.failed.Store(int64(time.Since(p.began)) | 1)
	}
}

// What who can do without it makes of a Redis that is silent or says no.
const (
	silentFor = 100 * time.Millisecond // how long who holds an old copy waits
	brokenFor = 100 * time.Millisecond // how long nobody tries again after a failure
)

// ails reports whether Redis seems to be away: a batch failed just now, or is on its way
// for longer than that, and none that was sent later has been answered. Whoever can do
// without had better not wait for it.
func (p *pipeline) ails(silent time.Duration) bool {
	now := time.Since(p.began)
	if at := p.failed.Load(); at != 0 && now-time.Duration(at) < brokenFor {
		return true
	}
	for i := range p.workers {
		if at := p.workers[i].since.Load(); at > p.answered.Load() && now-time.Duration(at) > silent {
			return true
		}
	}
	return false
}

// answers reports whether Redis has answered what was sent since then.
func (p *pipeline) answers(since time.Time) bool {
	return time.Duration(p.answered.Load()) > since.Sub(p.began)
}
