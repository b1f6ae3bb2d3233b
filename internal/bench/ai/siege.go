package ai

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	waiting = 300 // who ask at once
	places  = 64  // questions that a worker has at a time
)

// siege is many who ask for answers, each anew when it has one.
type siege struct {
	address string
	atATime int
}

// besieged does something during a siege, once as many calls of the model are under way as
// may be, and returns how many answers there were.
func (b *bed) besieged(ctx context.Context, s *siege, name string, do func() error) (answers int, err error) {
	over, turns := make(chan struct{}), make(chan struct{}, s.atATime)
	var told atomic.Int64
	var asking sync.WaitGroup
	failed := make(chan error, waiting)
	calls := len(b.model.Calls())
	for n := range waiting {
		asking.Go(func() {
			a, err := dial(ctx, s.address)
			if err != nil {
				failed <- err
				return
			}
			asking.Go(func() { <-over; a.close() }) // whatever it waits for
			failed <- a.askOn(over, turns, &told, func(i int) []byte {
				return b.requestFor(fmt.Sprintf("chapter %d of %d: %s", i, n, name), n%2 == 0)
			})
		})
	}
	err = await(ctx, "the model is slow", func() error {
		if n := len(b.model.Calls()) - calls; n < places {
			return fmt.Errorf("it was called %d times", n)
		}
		return nil
	})
	if err == nil {
		err = do()
	}
	close(over)
	asking.Wait()
	close(failed)
	for one := range failed {
		err = errors.Join(err, one)
	}
	return int(told.Load()), err
}

// askOn asks one thing after the other until it is over, when its connection is closed.
func (a *asker) askOn(over <-chan struct{}, turns chan struct{}, told *atomic.Int64, question func(n int) []byte) error {
	for n := 0; ; n++ {
		select {
		case turns <- struct{}{}:
		case <-over:
			return nil
		}
		_, _, err := a.ask(question(n))
		<-turns
		select {
		case <-over:
			return nil
		default:
		}
		if err != nil {
			return err
		}
		told.Add(1)
	}
}
