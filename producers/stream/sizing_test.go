package stream

import (
	"strings"
	"testing"
)

func TestReadsAreSizedByWhatCame(t *testing.T) {
	s := newSizing(500, false)
	brings := func(n, size int) int {
		ds := make([]*delivery, n)
		for i := range ds {
			ds[i] = &delivery{fields: fields{"data", strings.Repeat("x", size)}}
		}
		s.note(ds, s.count())
		return s.count()
	}
	if n := s.count(); n != 32 {
		t.Errorf("the first read is of %d", n)
	}
	if n := newSizing(500, true).count(); n != 1 {
		t.Errorf("after a failure the first read is of %d", n)
	}
	for _, want := range []int{64, 128, 256, 500, 500} {
		if n := brings(s.count(), 1); n != want || !s.more {
			t.Errorf("while all come that may, the next read is of %d; want %d", n, want)
		}
	}
	if n := brings(500, 1<<20); n != 3 {
		t.Errorf("after 500 of a megabyte the next read is of %d", n)
	}
	if n := brings(3, 10<<20); n != 1 {
		t.Errorf("after 10 megabytes the next read is of %d", n)
	}
	for range 8 {
		brings(s.count(), 1)
	}
	if n := brings(s.count()-1, 1); n != 32 || s.more {
		t.Errorf("when fewer came than may, the next read is of %d", n)
	}
	if n := brings(0, 0); n != 32 || s.more {
		t.Errorf("after nothing the next read is of %d", n)
	}
}
