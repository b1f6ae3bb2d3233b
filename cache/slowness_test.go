package cache

import (
	"testing"
	"time"
)

// TestOneTriesASlowRedis after a pause, and the others wait for how that ends.
func TestOneTriesASlowRedis(t *testing.T) {
	t.Parallel()
	var s slowness
	const begun = time.Minute
	for i, step := range []struct {
		at     time.Duration
		pauses bool
		then   func(now time.Duration) // what becomes of who asked
	}{
		{0, false, func(now time.Duration) { s.note(nil, time.Millisecond, now) }},
		{0, false, func(now time.Duration) { s.note(errImpatient, soonFor, now) }},
		{slowPause - 1, true, nil},
		{slowPause, false, nil}, // one tries
		{slowPause, true, nil},
		{slowPause + soonFor, true, func(now time.Duration) { s.note(errImpatient, soonFor, now) }}, // in vain
		{2 * slowPause, true, nil},
		{2*slowPause + soonFor, false, func(now time.Duration) { s.note(nil, soonFor-1, now) }}, // and just so
		{2*slowPause + 2*soonFor, true, nil},
		{3*slowPause + soonFor, false, func(now time.Duration) { s.note(errAway, 1, now) }}, // says nothing of how long it takes
		{3*slowPause + 2*soonFor, true, nil},
		{4*slowPause + soonFor, false, func(now time.Duration) { s.note(nil, time.Millisecond, now) }},
		{4*slowPause + soonFor, false, nil},
		{4*slowPause + soonFor, false, nil},
	} {
		now := begun + step.at
		if got := s.pauses(now); got != step.pauses {
			t.Fatalf("step %d: %t", i, got)
		}
		if step.then != nil {
			step.then(now)
		}
	}
}

// SlowPause is for how long a slow Redis is left alone.
const SlowPause = slowPause
