package watch

import (
	"bufio"
	"slices"
	"strings"
	"testing"
)

// A change counts as often as it came, and its time is from its commit to each.
func TestChangesAreFoundInEvents(t *testing.T) {
	c := newCrowd(3)
	event := "id: \"x\"\nevent: status\ndata: {\"runId\":\"r\",\"message\":\"%\",\"style\":\"\"}\n\n"
	events := []string{"retry: 2000\n\n", strings.Replace(event, "%", "begun", 1), ":\n\n"}
	for _, n := range []string{"0", "2", "2", "3", "-1"} {
		events = append(events, strings.Replace(event, "%", n, 1))
	}
	in := bufio.NewReader(strings.NewReader(strings.Join(events, "")))
	for range 6 {
		if err := c.read(in); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.read(in); err == nil {
		t.Error("a stream that has ended has another event")
	}
	if missing := c.await(t.Context(), 0); missing != 3*perRun-3 {
		t.Errorf("%d are missing", missing)
	}
	for i, at := range []int64{5e6, 1e6, 2e6} {
		c.written[i].Store(at)
	}
	c.arrivals[0].Store(4e6) // before its writer heard of the commit
	c.arrivals[2*perRun].Store(7e6)
	c.arrivals[2*perRun+1].Store(9e6)
	if late := c.late(); !slices.Equal(late, []float64{0, 5, 7}) {
		t.Errorf("late by %v", late)
	}
}
