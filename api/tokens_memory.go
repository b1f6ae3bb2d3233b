package api

import (
	"sync"
	"time"

	"mythiccache/cache"
)

// How much is remembered of tokens: so many of each of two generations, each for so
// long. One entry takes about 200 bytes besides its user's name.
const (
	remembered    = 8192
	maxRemembered = 5 * time.Minute
)

// memory remembers tokens that were found good, so that a hot caller costs neither a
// signature check nor a look into Redis. Two generations of bounded size take turns:
// what was used in neither is forgotten.
type memory struct {
	mu        sync.Mutex
	new, old  map[cache.TokenHash]verified
	renewedAt time.Time
	changes   uint64 // how often something was revoked or forgotten
}

// verified is what is remembered of a token.
type verified struct {
	caller  caller
	token   cache.Token // by which names it may be revoked
	until   time.Time   // when it is to be verified again
	touched time.Time   // of a session: when its use was last written down
	expires time.Time   // of a session: its end, however much it is used; zero: none
}

func newMemory() *memory { return &memory{new: map[cache.TokenHash]verified{}} }

// recall returns what is remembered of a token.
func (m *memory) recall(hash cache.TokenHash, now time.Time) (verified, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.new[hash]
	if !ok {
		if v, ok = m.old[hash]; ok {
			m.keep(v, now)
		}
	}
	return v, ok && now.Before(v.until)
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
	if limit := now.Add(maxRemembered); v.until.IsZero() || v.until.After(limit) {
		v.until = limit
	}
	m.keep(v, now)
}

// keep is called with the lock held.
func (m *memory) keep(v verified, now time.Time) {
	if len(m.new) >= remembered || now.Sub(m.renewedAt) > maxRemembered {
		m.old, m.new = m.new, make(map[cache.TokenHash]verified, len(m.new))
		m.renewedAt = now
	}
	m.new[v.token.Hash] = v
}

// used notes that a session is used, and reports whether that is to be written down:
// once in every so long.
func (m *memory) used(hash cache.TokenHash, now time.Time, every time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.new[hash]
	if !ok || now.Sub(v.touched) < every {
		return false
	}
	v.touched = now
	m.new[hash] = v
	return true
}

// revoke forgets what a revocation concerns.
func (m *memory) revoke(r cache.Revocation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	for _, generation := range []map[cache.TokenHash]verified{m.new, m.old} {
		for hash := range generation {
			if r.Hits(generation[hash].token) {
				delete(generation, hash)
			}
		}
	}
}

// forget forgets one token.
func (m *memory) forget(hash cache.TokenHash) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	delete(m.new, hash)
	delete(m.old, hash)
}

// empty forgets everything.
func (m *memory) empty() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	m.new, m.old = map[cache.TokenHash]verified{}, nil
}
