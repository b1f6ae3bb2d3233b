package cache

import (
	"math"
	"testing"
	"time"
)

// The share of readers who ask is that of the paper: e to the power of -left/delta.
func TestShareOfReadersWhoAskEarly(t *testing.T) {
	t.Parallel()
	saved := time.UnixMilli(1_700_000_000_000)
	e := Entry{Saved: saved, FreshUntil: saved.Add(10 * time.Second), LoadTook: 90 * time.Millisecond}
	const readers = 20_000
	share := func(left time.Duration) float64 {
		asked := 0
		for range readers {
			if e.early(e.FreshUntil.Add(-left), draw()) {
				asked++
			}
		}
		return float64(asked) / readers
	}
	for _, left := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
		want := math.Exp(-float64(left) / float64(100*time.Millisecond))
		if got := share(left); math.Abs(got-want) > 0.03 { // eight times its deviation
			t.Errorf("%s before the end %.3f ask, want %.3f", left, got, want)
		}
	}
	if got := share(4500 * time.Millisecond); got != 0 {
		t.Errorf("forty-five loads before the end %.5f ask", got)
	}
}

func TestNobodyAsksInTheFirstHalf(t *testing.T) {
	t.Parallel()
	saved := time.UnixMilli(1_700_000_000_000)
	e := Entry{Saved: saved, FreshUntil: saved.Add(time.Second), LoadTook: time.Hour}
	for after, want := range map[time.Duration]bool{0: false, 499 * time.Millisecond: false, 501 * time.Millisecond: true, time.Second: true} {
		if got := e.early(saved.Add(after), 0.5); got != want {
			t.Errorf("after %s: %v", after, got)
		}
	}
}
