package cache

import (
	"sync"
	"time"
)

// nearShard is a part of what is kept near, with a lock of its own. Entries that are
// new stand in a short queue and leave from its end, unless they have been read again
// meanwhile: those move on into the main queue, where each reading buys another round.
// So what is read once, however much, does not drive out what is read often. (S3-FIFO:
// Yang and others, "FIFO Queues Are All You Need for Cache Eviction", SOSP 2023;
// without its third queue of what has left.)
type nearShard struct {
	mu      sync.Mutex
	entries map[waitKey]*kept
	marks   map[waitKey]*struckOut
	fresh   ring // of new ones
	main    ring
	most    int64            // bytes
	gone    map[waitKey]gone // what was written and dropped, until it is read again
}

// freshPart of the bytes belong to new entries.
const freshPart = 10

// kept is an entry in memory. What is above the line never changes.
type kept struct {
	at    waitKey
	entry Entry
	run   string // under which it was put
	in    *era   // in which it was read
	bytes int64

	uses       int8 // since it came, or went round last
	ring       *ring
	prev, next *kept
}

const mostUses = 3

// keptOverhead is what an entry costs besides its texts: the structs, its place in a
// map, and what the allocator rounds up.
const keptOverhead = 640

func (k *kept) size() int64 {
	e := &k.entry
	return int64(keptOverhead + cap(e.Body) + len(e.Key) + len(e.Owner) + len(e.ETag) + cap(e.kept) + 8*len(e.Snapshot.Xip))
}

// struckOut is the mark of those who read one key.
type struckOut struct {
	readers int
	out     bool
}

func (s *nearShard) init(most int64) {
	s.entries, s.marks, s.most = map[waitKey]*kept{}, map[waitKey]*struckOut{}, most
	s.gone = map[waitKey]gone{}
	s.fresh.init()
	s.main.init()
}

// use returns an entry and counts that it was read; nil where it is not there.
func (s *nearShard) use(k waitKey) *kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.entries[k]
	if found != nil && found.uses < mostUses {
		found.uses++
	}
	return found
}

// begin leaves a mark. One that is struck out stays with those who have it: whoever
// asks from now on sees what was written.
func (s *nearShard) begin(k waitKey) *struckOut {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.marks[k]
	if m == nil || m.out {
		m = &struckOut{}
		s.marks[k] = m
	}
	m.readers++
	return m
}

// end takes a mark away and keeps an entry where there is one to keep.
func (s *nearShard) end(k waitKey, m *struckOut, found *kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.readers--; m.readers == 0 && s.marks[k] == m {
		delete(s.marks, k)
	}
	if found == nil || m.out {
		return
	}
	to := &s.fresh
	if old := s.entries[k]; old != nil {
		if old.in == found.in && newer(&old.entry, &found.entry) {
			return // two readers, and the slower one saw less
		}
		found.uses = old.uses
		to = old.ring
		s.remove(old)
	}
	s.entries[k] = found
	to.push(found)
	s.shrink()
}

// newer reports whether a is a later value than b.
func newer(a, b *Entry) bool {
	if order := a.Version.Compare(b.Version); order != 0 {
		return order > 0
	}
	return a.Saved.After(b.Saved)
}

// shrink makes room until no more is held than may be, with the lock held.
func (s *nearShard) shrink() {
	for s.fresh.bytes+s.main.bytes > s.most {
		if s.fresh.bytes > s.most/freshPart || s.main.empty() {
			last := s.fresh.last()
			if last.uses > 0 {
				last.uses = 0
				s.fresh.take(last)
				s.main.push(last)
				continue
			}
			s.remove(last)
			continue
		}
		last := s.main.last()
		if last.uses > 0 {
			last.uses--
			s.main.take(last)
			s.main.push(last)
			continue
		}
		s.remove(last)
	}
}

// drop removes an entry, and strikes out the mark of those who are reading it. Where it
// is told a clock, it notes when that was.
func (s *nearShard) drop(k waitKey, clock func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.marks[k]; m != nil {
		m.out = true
	}
	if old := s.entries[k]; old != nil {
		s.remove(old)
		if clock != nil {
			s.note(k, gone{at: clock(), saved: old.entry.Saved})
		}
	}
}

// outgrow removes an entry where Redis has a later value by now, or none.
func (s *nearShard) outgrow(k waitKey, l *look) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.entries[k]
	if old != nil && (l.err != nil || l.header.state == stateFence || newer(&l.entry, &old.entry)) {
		s.remove(old)
	}
}

// strike strikes out all marks.
func (s *nearShard) strike() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.marks {
		m.out = true
	}
}

// clear removes all, and strikes out all marks.
func (s *nearShard) clear() {
	s.strike()
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.entries)
	s.fresh.init()
	s.main.init()
}

func (s *nearShard) remove(k *kept) {
	k.ring.take(k)
	delete(s.entries, k.at)
}

func (s *nearShard) held() (entries int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries), s.fresh.bytes + s.main.bytes
}

// ring is a queue of entries, linked through a root.
type ring struct {
	root  kept
	bytes int64
}

func (r *ring) init() {
	r.root.prev, r.root.next = &r.root, &r.root
	r.bytes = 0
}

func (r *ring) empty() bool { return r.root.next == &r.root }

// last is the one that came first.
func (r *ring) last() *kept { return r.root.prev }

func (r *ring) push(k *kept) {
	k.prev, k.next, k.ring = &r.root, r.root.next, r
	k.prev.next, k.next.prev = k, k
	r.bytes += k.bytes
}

func (r *ring) take(k *kept) {
	k.prev.next, k.next.prev = k.next, k.prev
	k.prev, k.next, k.ring = nil, nil, nil
	r.bytes -= k.bytes
}
