package api

import (
	"sync"
	"time"

	"mythiccache/cache"
)

// How much is remembered of tokens: so many of each of two generations, each for so
// long. One entry takes some 600 bytes besides its user's name.
const (
	remembered    = 8192
	maxRemembered = 5 * time.Minute
)

// memory remembers tokens that were found good, so that a hot caller costs neither a
// signature check nor a look into Redis. Two generations of bounded size take turns:
// what was used in neither is forgotten. What is to be looked up again stays until
// then, for the case that nobody answers.
type memory struct {
	mu        sync.Mutex
	new, old  generation
	lasts     time.Duration // how long a generation is the new one
	renewedAt time.Time
	changes   uint64 // how often something was revoked or forgotten
}

// verified is what is remembered of a token.
type verified struct {
	caller  caller
	token   cache.Token // by which names it may be revoked
	until   time.Time   // when Redis is to be asked about it again
	end     time.Time   // when it is over by itself; of a session: unless it is used; zero: never
	touched time.Time   // of a session: when its use was last written down
	expires time.Time   // of a session: its end, however much it is used; zero: none
}

// outlasts reports whether a token that was to be looked up again is good for as long
// as Redis is away: it had been good a while before, the absence does not last longer
// than that while, and it has not ended.
func (v verified) outlasts(answered time.Time, while time.Duration, now time.Time) bool {
	return answered.Before(v.until.Add(while)) && now.Before(answered.Add(while)) && (v.end.IsZero() || now.Before(v.end))
}

// earlier returns the earlier of two times, of which a zero one never comes.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// newMemory makes a memory that keeps what was used in the last while.
func newMemory(while time.Duration) *memory {
	return &memory{new: newGeneration(), lasts: max(maxRemembered, while)}
}

// recall returns what is remembered of a token. From until on it does not suffice by
// itself.
func (m *memory) recall(hash cache.TokenHash, now time.Time) (verified, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.new.tokens[hash]
	if !ok {
		if v, ok = m.old.tokens[hash]; ok {
			m.keep(v, now)
		}
	}
	return v, ok
}

// mark returns the state of the memory before Redis is asked about a token.
func (m *memory) mark() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes
}

// remember keeps a token that Redis was asked about after the mark. It does not if
// anything was revoked meanwhile:
//
//  1. Redis is asked about a token, and says that it is good;
//  2. the token is revoked, and the announcement finds nothing to forget here;
//  3. were it remembered now, it would be good for minutes.
func (m *memory) remember(v verified, now time.Time, mark uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changes != mark {
		return
	}
	v.until = earlier(v.end, now.Add(maxRemembered))
	m.keep(v, now)
}

// keep is called with the lock held.
func (m *memory) keep(v verified, now time.Time) {
	if m.new.added >= remembered || now.Sub(m.renewedAt) > m.lasts {
		m.old, m.new = m.new, newGeneration()
		m.renewedAt = now
	}
	m.new.add(v)
}

// used notes that a session is used, which lives so long from then on, and reports
// whether that is to be written down: once in every so long.
func (m *memory) used(hash cache.TokenHash, now time.Time, every, lives time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.new.tokens[hash]
	if !ok || now.Sub(v.touched) < every {
		return false
	}
	v.touched, v.end = now, earlier(v.expires, now.Add(lives))
	m.new.tokens[hash] = v
	return true
}

// revoke forgets what a revocation concerns, and returns how many tokens it has looked
// at for that.
func (m *memory) revoke(r cache.Revocation) (looked int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	return m.new.revoke(r) + m.old.revoke(r)
}

// forget forgets one token. Where there is nothing to forget that changes nothing:
// strangers, who show what nobody knows, must not keep others from being remembered.
func (m *memory) forget(hash cache.TokenHash) {
	m.mu.Lock()
	defer m.mu.Unlock()
	inNew, inOld := m.new.forget(hash), m.old.forget(hash)
	if inNew || inOld {
		m.changes++
	}
}

// lapse has everything looked up again that was remembered until now.
func (m *memory) lapse(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	m.new.lapse(now)
	m.old.lapse(now)
}

// empty forgets everything.
func (m *memory) empty() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	m.new, m.old = newGeneration(), generation{}
}
