package api

import "mythiccache/cache/view"

// fixed are header values that do not change. They are shared by all answers, so
// nobody may append to them.
type fixed struct {
	json, nosniff, vary, watchedVary, revalidate, noStore, gzip []string
	hit, miss, stale, missed                                    []string
}

func newFixed(crossOrigin bool) fixed {
	vary := "Authorization, X-User-Id, Accept-Encoding"
	if crossOrigin {
		vary += ", Origin"
	}
	return fixed{
		json:    []string{"application/json"},
		nosniff: []string{"nosniff"},
		vary:    []string{vary},
		// By Accept, what can be watched comes as JSON or as a stream.
		watchedVary: []string{"Accept, " + vary},
		// What is stored here is dropped the moment it changes; a copy in a browser
		// could not be. So a client keeps the copy and asks whether it still holds,
		// which costs a 304.
		revalidate: []string{"private, max-age=0, must-revalidate"},
		noStore:    []string{"no-store"},
		gzip:       []string{"gzip"},
		hit:        []string{markHit},
		miss:       []string{markMiss},
		stale:      []string{markStale},
		missed:     []string{"mythic-cache; fwd=miss"},
	}
}

// varyOf names what of the request an answer of a view depends on.
func (f *fixed) varyOf(v *view.View) []string {
	if v.HTTP.Watch != "" {
		return f.watchedVary
	}
	return f.vary
}

func (f *fixed) marks(mark string) []string {
	switch mark {
	case markHit:
		return f.hit
	case markStale:
		return f.stale
	default:
		return f.miss
	}
}
