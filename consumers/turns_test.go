package consumers

import (
	"context"
	"errors"
	"testing"
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
