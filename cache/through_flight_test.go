package cache

import (
	"testing"
	"time"
)

// Who may share what a flight brings, by when they joined.
func TestFlightAnswersThoseWhoJoinedBefore(t *testing.T) {
	var a flights
	f, none, first := a.join("a", time.Hour)
	if !first || none != 0 {
		t.Fatalf("the first to join is first %v, with %d marks", first, none)
	}
	again, early, first := a.join("a", time.Hour)
	if again != f || first {
		t.Fatal("the second to join is on a flight of its own")
	}
	called := a.mark(f)
	_, during, _ := a.join("a", time.Hour)
	put := a.mark(f)
	_, after, _ := a.join("a", time.Hour)
	a.land("a", f, result{})
	<-f.done
	for name, c := range map[string]struct {
		good                 int
		early, during, after bool
	}{
		"nothing known":     {0, false, false, false},
		"known at the call": {called, true, false, false},
		"known at the put":  {put, true, true, false},
	} {
		f.result.good = c.good
		if f.answers(early) != c.early || f.answers(during) != c.during || f.answers(after) != c.after {
			t.Errorf("%s: early %v, during %v, after %v", name, f.answers(early), f.answers(during), f.answers(after))
		}
	}
	if _, _, first := a.join("a", time.Hour); !first {
		t.Error("a flight that has landed is joined")
	}
}

// One that is away for too long is replaced, and does no harm when it lands.
func TestFlightIsGivenUp(t *testing.T) {
	var a flights
	lost, _, _ := a.join("a", time.Hour)
	next, _, first := a.join("a", 0)
	if !first || next == lost {
		t.Fatal("a flight that is away for too long is joined")
	}
	a.land("a", lost, result{})
	if same, _, first := a.join("a", time.Hour); first || same != next {
		t.Error("the one that was given up took the other one along")
	}
	a.land("a", next, result{})
	if len(a.byKey) != 0 {
		t.Errorf("%d flights are left", len(a.byKey))
	}
}
