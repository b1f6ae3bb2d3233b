package stream

// sizing says how many entries to read at a time, by the bytes of those before: an
// entry may have megabytes, and nobody knows before it is there.
type sizing struct {
	most int  // entries
	next int  // entries
	more bool // the last read brought all that it asked for, so there may be more
}

// readBytes is about how much one read brings of each stream, whatever the batch
// size.
const readBytes = 4 << 20

// readFirst is how many entries a read brings at most while few come at a time: what
// comes next may be a flood of large ones.
const readFirst = 32

// newSizing begins small, and with a single entry after a failure: what was asked for
// may have been too much to come in time.
func newSizing(batchSize int, failed bool) *sizing {
	if failed {
		return &sizing{most: batchSize, next: 1}
	}
	return &sizing{most: batchSize, next: min(readFirst, batchSize)}
}

func (s *sizing) count() int { return s.next }

// note learns from a read that asked for so many: while all are there, the next one
// asks for twice as many.
func (s *sizing) note(ds []*delivery, asked int) {
	s.more = len(ds) >= asked
	grown := readFirst
	if s.more {
		grown = 2 * s.next
	}
	s.next = max(1, min(grown, s.most, readBytes/average(ds)))
}

// average is about how many bytes an entry has, at least 1.
func average(ds []*delivery) int {
	bytes := 0
	for _, d := range ds {
		bytes += d.fields.size()
	}
	return max(1, bytes/max(1, len(ds)))
}
