package cache

import (
	"testing"
	"time"

	"mythiccache/cache/version"
)

// A refused value may be given to who asked before it was read, provided that
// whatever is found later is not older.
func TestWhomARefusedValueAnswers(t *testing.T) {
	taken := time.UnixMilli(1_800_000_000_000)
	read := Entry{Snapshot: version.Snapshot{Epoch: 1, Xmin: 9, Xmax: 9}}
	for _, c := range []struct {
		why   string
		entry Entry
		want  bool
	}{
		{"refused: the key has changed since", read, true},
		{"refused: the whole view has changed since", read, true},
		{"refused: the view has no key", read, true},
		{"refused: the lease is gone", read, false},
		{"refused: redis was restarted since the lease was taken", read, false},
		{"", read, false},
		{"refused: the lease is gone", Entry{}, true}, // a model's
	} {
		f := Filled{Entry: c.entry, Outcome: Refused, Taken: taken, At: taken.Add(time.Second), Reason: c.why}
		if got := f.Answers(taken.Add(-time.Millisecond)); got != c.want {
			t.Errorf("%q, read at %s: answers %v", c.why, c.entry.Snapshot, got)
		}
		if f.Answers(taken) {
			t.Errorf("%q answers a question that may be younger than what was read", c.why)
		}
	}
}
