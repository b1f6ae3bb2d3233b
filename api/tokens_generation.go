package api

import (
	"time"

	"mythiccache/cache"
)

// generation is a part of the memory. Its tokens are found by every name that they may
// be revoked by, so that a revocation need not look at all of them: who revokes a
// thousand at once would hold up every request of the process.
type generation struct {
	tokens map[cache.TokenHash]verified
	names  map[string][]cache.TokenHash // of each name but the hash; of what has been forgotten, too
	added  int                          // how many there ever were, which bounds both
}

func newGeneration() generation {
	return generation{tokens: map[cache.TokenHash]verified{}, names: map[string][]cache.TokenHash{}}
}

// add keeps a token, in the place of what is kept of it already.
func (g *generation) add(v verified) {
	hash := v.token.Hash
	if _, there := g.tokens[hash]; !there {
		g.added++
		for _, name := range v.token.Names() {
			g.names[name] = append(g.names[name], hash)
		}
	}
	g.tokens[hash] = v
}

// revoke forgets what a revocation concerns, and returns how many tokens it has looked
// at.
func (g *generation) revoke(r cache.Revocation) (looked int) {
	if hash, err := cache.ParseTokenHash(r.Name()); err == nil && g.forget(hash) {
		looked++
	}
	var left []cache.TokenHash
	for _, hash := range g.names[r.Name()] {
		v, there := g.tokens[hash]
		looked++
		switch {
		case !there:
		case r.Hits(v.token):
			delete(g.tokens, hash)
		default: // issued since
			left = append(left, hash)
		}
	}
	if left == nil {
		delete(g.names, r.Name())
	} else {
		g.names[r.Name()] = left
	}
	return looked
}

// forget forgets one token, and reports whether there was one.
func (g *generation) forget(hash cache.TokenHash) bool {
	_, there := g.tokens[hash]
	delete(g.tokens, hash)
	return there
}

// lapse has all tokens looked up again.
func (g *generation) lapse(now time.Time) {
	for hash, v := range g.tokens {
		v.until = earlier(v.until, now)
		g.tokens[hash] = v
	}
}
