package consumers

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mythiccache/cache/view"
)

// item is a key of a view.
type item struct {
	view *view.View
	key  int
}

func itemView(i item) *view.View { return i.view }

// Whatever a view's items wait for, those of another are done.
func TestLanesDoNotWaitForOneAnother(t *testing.T) {
	t.Parallel()
	slow, fast := &view.View{Name: "slow"}, &view.View{Name: "fast"}
	var items []item
	for key := range 20 {
		items = append(items, item{slow, key}, item{fast, key})
	}
	synctest.Test(t, func(t *testing.T) {
		left, done := atomic.Int32{}, make(chan struct{})
		left.Store(20)
		errs := inLanes(t.Context(), 2, items, itemView, func(_ context.Context, i item) error {
			if i.view == slow {
				<-done
			} else if left.Add(-1) == 0 {
				close(done) // and then the slow ones may go on
			}
			return fmt.Errorf("%s %d", i.view.Name, i.key)
		})
		for n, i := range items {
			if got, want := fmt.Sprint(errs[n]), fmt.Sprintf("%s %d", i.view.Name, i.key); got != want {
				t.Errorf("%s ends with %s", want, got)
			}
		}
	})
}

func TestLaneEndsAtTheFirstThatIsBusy(t *testing.T) {
	t.Parallel()
	var items []item
	for key := range 9 {
		items = append(items, item{&view.View{Name: "slow"}, key})
	}
	items = append(items, item{&view.View{Name: "fast"}, 0})
	var tried atomic.Int32
	errs := inLanes(t.Context(), 1, items, itemView, func(_ context.Context, i item) error {
		tried.Add(1)
		if i.view.Name == "slow" && i.key == 3 {
			return fmt.Errorf("no turn: %w", ErrBusy)
		}
		return nil
	})
	for n, i := range items {
		if busy := i.view.Name == "slow" && i.key >= 3; errors.Is(errs[n], ErrBusy) != busy {
			t.Errorf("key %d of %s ends with %v", i.key, i.view.Name, errs[n])
		}
	}
	if n := tried.Load(); n != 5 {
		t.Errorf("%d were tried", n)
	}
}

func TestLaneBeginsNothingLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		items, begun := make([]item, 64), time.Now()
		for n := range items {
			items[n] = item{&view.View{Name: "slow"}, n}
		}
		const load = 20 * time.Second
		errs := inLanes(t.Context(), 8, items, itemView, func(context.Context, item) error {
			time.Sleep(load)
			return nil
		})
		if took := time.Since(begun); took != load {
			t.Errorf("took %s, where each takes %s", took, load)
		}
		busy := 0
		for _, err := range errs {
			if errors.Is(err, ErrBusy) {
				busy++
			}
		}
		if busy != 56 {
			t.Errorf("%d of 64 were not begun", busy)
		}
	})
}
