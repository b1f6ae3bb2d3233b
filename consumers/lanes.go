package consumers

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"mythiccache/cache/view"
)

// laneFor is how long after it has begun a batch still begins loads. What a batch
// holds up (its place among those of its consumer, and the acknowledgement of what
// is done) is free again when the last of them has ended.
const laneFor = 2 * time.Second

// lane is the part of a batch that is about one view.
type lane struct {
	until time.Time
	busy  atomic.Bool
}

// inLanes runs do for every item, so many of each view at a time, and waits for all.
// Views do not wait for one another. Once one of a view has failed with ErrBusy, or
// laneFor is over, those that are left of the view fail so too, at once: each of them
// would only wait as long.
func inLanes[T any](
	ctx context.Context, atATime int, items []T, viewOf func(T) *view.View, do func(ctx context.Context, item T) error,
) []error {
	places := map[string][]int{}
	for i, item := range items {
		name := viewOf(item).Name
		places[name] = append(places[name], i)
	}
	errs := make([]error, len(items))
	var lanes sync.WaitGroup
	for _, ofView := range places {
		lanes.Go(func() {
			l := &lane{until: time.Now().Add(laneFor)}
			together(ctx, atATime, ofView, func(ctx context.Context, i int) error {
				errs[i] = l.run(func() error { return do(ctx, items[i]) })
				return nil
			})
		})
	}
	lanes.Wait()
	return errs
}

func (l *lane) run(do func() error) error {
	if l.busy.Load() || !time.Now().Before(l.until) {
		return ErrBusy
	}
	err := do()
	if errors.Is(err, ErrBusy) {
		l.busy.Store(true)
	}
	return err
}
