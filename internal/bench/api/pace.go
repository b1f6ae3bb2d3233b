package api

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

// pace is a load that does not wait for answers: each request has a moment at which it
// is due, and waits for a free connection where there is none.
type pace struct {
	rate  float64       // requests per second
	lasts time.Duration // 0: until the context ends
}

// keep has do called for each request that is due, by one of the workers, and returns
// how long after it was due each was done. It returns when all that were due are done.
func (p pace) keep(ctx context.Context, workers int, do func(worker, n int)) []time.Duration {
	due := make(chan request, 1<<16)
	took := make([][]time.Duration, workers)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for r := range due {
				do(w, r.n)
				took[w] = append(took[w], time.Since(r.at))
			}
		})
	}
	p.release(ctx, due)
	close(due)
	group.Wait()
	return slices.Concat(took...)
}

// request is one that is due.
type request struct {
	n  int
	at time.Time
}

// release lets requests go when they are due. It has a thread of its own, which the
// scheduler of goroutines, with its whole milliseconds, does not wake late.
func (p pace) release(ctx context.Context, due chan<- request) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begun := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		after := time.Duration(float64(n) / p.rate * float64(time.Second))
		if p.lasts > 0 && after >= p.lasts {
			return
		}
		at := begun.Add(after)
		if left := time.Until(at); left > 0 {
			nap(left)
		}
		due <- request{n, at}
	}
}
