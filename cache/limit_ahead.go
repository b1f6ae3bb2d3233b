package cache

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// A process takes admissions ahead for callers who come often, so that what it can
// answer from memory needs no round trip for the limiter. What it has taken counts
// as used in Redis: nobody is admitted too many, and a caller who goes to another
// process loses what is left here, a tenth of the limit at most, until it is over.
const (
	aheadPart  = 10          // a part of the limit so small may be taken ahead
	aheadMost  = 256         // and never more
	aheadLife  = time.Second // for so long at most
	lifePart   = 20          // and for a part of the limit's time so small
	aheadSoon  = 4           // used up within a part of the life so small: take twice as many
	aheadKept  = 1024        // callers of one generation and shard
	aheadShard = 16
)

// life is how long admissions may be used that were taken ahead.
func (l Limit) life() time.Duration {
	return min(aheadLife, (l.Per / lifePart).Truncate(time.Microsecond))
}

// mostAhead is how many may be taken ahead.
func (l Limit) mostAhead() int { return min(l.Count/aheadPart, aheadMost) }

type limitKey struct{ rule, caller string }

// allowances are what this process knows of callers: what it has taken ahead, and
// while Redis is away, what it has admitted by itself. Two generations of bounded
// size take turns; to be forgotten costs a caller what was taken ahead.
type allowances struct {
	seed   maphash.Seed
	shards [aheadShard]allowanceShard

	withoutRedis atomic.Uint64 // admissions by this process's own count
}

type allowanceShard struct {
	mu       sync.Mutex
	new, old map[limitKey]*allowance
}

// allowance is what is known of one caller under one rule.
type allowance struct {
	left      int       // taken ahead and not used
	until     time.Time // and over then
	taken     time.Time // when it was
	later     int       // how many were taken ahead
	remaining int       // how many more Redis would have admitted
	full      time.Time // when all are allowed again
	arrival   time.Time // of the limiter that stands in for Redis; see limit.lua
}

func newAllowances() *allowances {
	a := &allowances{seed: maphash.MakeSeed()}
	for i := range a.shards {
		a.shards[i].new = map[limitKey]*allowance{}
	}
	return a
}

func (a *allowances) shard(k limitKey) *allowanceShard {
	return &a.shards[maphash.String(a.seed, k.caller)%aheadShard]
}

// of finds a caller's allowance, or nil. It is called with the lock held.
func (s *allowanceShard) of(k limitKey) *allowance {
	if known := s.new[k]; known != nil {
		return known
	}
	known := s.old[k]
	if known != nil {
		s.keep(k, known)
	}
	return known
}

// make finds a caller's allowance, or makes an empty one, with the lock held.
func (s *allowanceShard) make(k limitKey) *allowance {
	known := s.of(k)
	if known == nil {
		known = &allowance{}
		s.keep(k, known)
	}
	return known
}

func (s *allowanceShard) keep(k limitKey, known *allowance) {
	if len(s.new) >= aheadKept {
		s.old, s.new = s.new, make(map[limitKey]*allowance, aheadKept)
	}
	s.new[k] = known
}

// take uses one of the admissions that were taken ahead, where there is one.
func (a *allowances) take(l *Limit, now time.Time) (Admission, bool) {
	k := limitKey{l.Rule, l.Caller}
	s := a.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.of(k)
	if known == nil || known.left == 0 || !now.Before(known.until) {
		return Admission{}, false
	}
	known.left--
	return Admission{
		Allowed: true, Limit: l.Count,
		Remaining: known.remaining + known.left, Reset: max(known.full.Sub(now), 0),
	}, true
}

// next says how many to take ahead this time: more where the last were used up
// soon, fewer where some of them were not.
func (a *allowances) next(l *Limit, now time.Time) int {
	k := limitKey{l.Rule, l.Caller}
	s := a.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.of(k)
	if known == nil || known.taken.IsZero() {
		return 0
	}
	life := l.life()
	switch since := now.Sub(known.taken); {
	case since >= life || known.left > 0:
		known.later /= 2
	case since < life/aheadSoon:
		known.later = max(2*known.later, 1)
	}
	known.later = min(known.later, l.mostAhead())
	return known.later
}

// give notes what Redis has admitted beyond what was needed at once. It was asked
// at that moment, so all of it is over a life after that.
func (a *allowances) give(l *Limit, left int, said Admission, sent time.Time) {
	k := limitKey{l.Rule, l.Caller}
	s := a.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.make(k)
	if known.left > 0 && sent.Before(known.until) { // asked for twice at once: each has its own end, the sooner counts
		left += known.left
	} else {
		known.until = sent.Add(l.life())
	}
	known.left, known.taken, known.remaining, known.full = left, sent, said.Remaining, sent.Add(said.Reset)
}

// back takes back an admission that was had by then and not used, for the caller's next
// request. One that was taken ahead before those that are left is not added to them: they
// are over later.
func (a *allowances) back(l *Limit, had, now time.Time) {
	k := limitKey{l.Rule, l.Caller}
	s := a.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.of(k); known != nil && now.Before(known.until) && !known.taken.After(had) {
		known.left++
	}
}

// alone admits by the same rate while Redis is away: this process's share of what
// should be one count, and so a bound and no more.
func (a *allowances) alone(l *Limit, now time.Time) Admission {
	k := limitKey{l.Rule, l.Caller}
	s := a.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.make(k)
	interval := l.interval()
	burst := interval * time.Duration(l.burst())
	if known.arrival.Before(now) {
		known.arrival = now
	}
	said := Admission{Limit: l.Count}
	if ahead := known.arrival.Add(interval).Sub(now); ahead > burst {
		said.RetryAfter = ahead - burst
	} else {
		known.arrival, said.Allowed = now.Add(ahead), true
		a.withoutRedis.Add(1)
	}
	said.Reset = known.arrival.Sub(now)
	said.Remaining = int((burst - said.Reset) / interval)
	return said
}
