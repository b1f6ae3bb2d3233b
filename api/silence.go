package api

import (
	"sync/atomic"
	"time"
)

// While Redis does not answer, one caller who can do without its answer waits for it
// each lookAgain, and no longer than lookPatience. The others are not held up.
const (
	lookPatience = 250 * time.Millisecond
	lookAgain    = time.Second
)

// silence remembers that Redis did not answer, so that not everybody finds out anew.
type silence struct {
	began time.Time
	until atomic.Int64 // when to ask again, in nanoseconds since began; 0: Redis answers
	last  atomic.Int64 // when it last answered; 0: never
}

func newSilence() *silence { return &silence{began: time.Now()} }

// asks reports whether Redis is to be asked now: by everybody while it answers, and by
// one caller in each lookAgain while it does not.
func (s *silence) asks(now time.Time) bool {
	until := s.until.Load()
	if until == 0 {
		return true
	}
	at := int64(now.Sub(s.began))
	return at >= until && s.until.CompareAndSwap(until, at+int64(lookAgain))
}

// away reports whether Redis did not answer when it was last asked.
func (s *silence) away() bool { return s.until.Load() != 0 }

// heard notes whether Redis has answered.
func (s *silence) heard(answered bool) {
	until, now := int64(0), time.Since(s.began)
	if answered {
		s.last.Store(int64(now))
	} else {
		until = int64(now + lookAgain)
	}
	if s.until.Load() != until {
		s.until.Store(until)
	}
}

// answered returns when Redis last answered; zero: never.
func (s *silence) answered() time.Time {
	last := s.last.Load()
	if last == 0 {
		return time.Time{}
	}
	return s.began.Add(time.Duration(last))
}
