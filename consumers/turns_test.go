package consumers

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestTurnsAreOfAViewAndOfAll(t *testing.T) {
	t.Parallel()
	turns := newTurns(2, 3)
	take := func(view string) func() {
		t.Helper()
		give, err := turns.take(t.Context(), view, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return give
	}
	full := func(view string) {
		t.Helper()
		if give, err := turns.take(t.Context(), view, time.Millisecond); !errors.Is(err, ErrBusy) {
			t.Errorf("a turn of %s too many: %v", view, err)
			give()
		}
	}
	a, _ := take("a"), take("a")
	full("a")
	b := take("b") // the third of all
	full("b")
	full("c")
	b()
	take("c") // also what full has taken of b and c was given back
	full("b")
	a()
	take("b")
	full("a")
}

func TestTurnIsHandedToWhoeverWaits(t *testing.T) {
	t.Parallel()
	turns := newTurns(1, 1)
	give, err := turns.take(t.Context(), "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		_, err := turns.take(t.Context(), "a", time.Minute)
		got <- err
	}()
	give()
	if err := <-got; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.take(ctx, "a", time.Minute); !errors.Is(err, context.Canceled) || errors.Is(err, ErrBusy) {
		t.Errorf("whoever was told to end ends with %v", err)
	}
}

// Who waits longest comes first.
func TestTurnsAreInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1, 1)
		give, err := turns.take(t.Context(), "a", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		const waiting = 20
		order := make(chan int, waiting)
		for n := range waiting {
			go func() {
				give, err := turns.take(t.Context(), "a", time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				order <- n
				give()
			}()
			synctest.Wait() // until it waits
		}
		give()
		for want := range waiting {
			if got := <-order; got != want {
				t.Errorf("number %d has the turn of number %d", got, want)
			}
		}
	})
}

// Whoever stops waiting, for its own place or for one of all, leaves none taken.
func TestWhoeverStopsWaitingLeavesNoPlaceTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(2, 2)
		a, errA := turns.take(t.Context(), "a", time.Minute)
		b, errB := turns.take(t.Context(), "b", time.Minute)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		ended := make(chan error)
		for n := range 8 {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				_, err := turns.take(ctx, "a", time.Second)
				ended <- err
			}()
			synctest.Wait()
			want := ErrBusy
			if n%2 == 0 {
				cancel()
				want = context.Canceled
			}
			if err := <-ended; !errors.Is(err, want) {
				t.Errorf("waiter %d ends with %v", n, err)
			}
			cancel()
		}
		a()
		b()
		for range 2 {
			if _, err := turns.take(t.Context(), "a", time.Minute); err != nil {
				t.Error(err)
			}
		}
		if len(turns.all) != 2 || len(turns.views["a"]) != 2 || len(turns.views["b"]) != 0 {
			t.Errorf("taken: %d of all, %d of a, %d of b", len(turns.all), len(turns.views["a"]), len(turns.views["b"]))
		}
	})
}

// A turn that is free is had at once, by who would not wait for it, too.
func TestTurnWithoutPatience(t *testing.T) {
	t.Parallel()
	turns := newTurns(1, 2)
	for range 50 {
		give, err := turns.take(t.Context(), "a", 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := turns.take(t.Context(), "a", 0); !errors.Is(err, ErrBusy) {
			t.Fatalf("a second turn: %v", err)
		}
		give()
	}
}
