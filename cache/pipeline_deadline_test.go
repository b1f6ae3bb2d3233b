package cache_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"mythiccache/cache"
)

// TestADeadlineIsUsedAgainUntilItHasPassed gives a worker's batches their time.
func TestADeadlineIsUsedAgainUntilItHasPassed(t *testing.T) {
	t.Parallel()
	first, next := cache.Deadline(time.Hour)
	second := next(2 * time.Hour)
	if second != first || second.Err() != nil {
		t.Errorf("the second is another, or over: %v", second.Err())
	}
	if until, ok := second.Deadline(); !ok || time.Until(until) < 90*time.Minute || time.Until(until) > 2*time.Hour {
		t.Errorf("it lasts until %s", until)
	}
	third := next(time.Millisecond)
	select {
	case <-third.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	if !errors.Is(third.Err(), context.DeadlineExceeded) {
		t.Errorf("it ends with %v", third.Err())
	}
	fourth := next(time.Hour)
	if fourth == third || fourth.Err() != nil {
		t.Errorf("what has passed is used again: %v", fourth.Err())
	}
	select {
	case <-fourth.Done():
		t.Error("the fourth has ended")
	default:
	}
	next(time.Hour)
}
