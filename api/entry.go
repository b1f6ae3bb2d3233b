package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
)

// source says where an entry came from, for Cache-Status (RFC 9211) and X-Cache.
type source struct {
	mark      string // HIT, MISS or STALE
	fwd       string // why the cache could not answer alone; empty: it did
	detail    string
	stored    bool
	collapsed bool
	near      bool      // this process had it in memory
	at        time.Time // when the entry was read, by the clock of Redis
}

// The values of X-Cache.
const (
	markHit   = "HIT"
	markMiss  = "MISS"
	markStale = "STALE"
)

// hitSource is the source of an entry that is fresh.
func hitSource(result cache.Result) source {
	return source{mark: markHit, at: result.Now, near: result.Near}
}

// staleSource is the source of an entry that is served although it is not fresh. It
// is a hit (RFC 9211, 2.2), unless a worker was asked for another and brought none.
func staleSource(result cache.Result, asked bool) source {
	s := source{mark: markStale, detail: result.Why, at: result.Now}
	if asked {
		s.fwd = cache.WhyStale
	}
	return s
}

// missed is the source of an entry that was waited for, given why the store had
// none.
func missed(why string, got filled) source {
	s := source{mark: markMiss, fwd: "miss", detail: why, stored: got.stored, collapsed: got.collapsed, at: got.at}
	switch why {
	case cache.WhyAbsent, cache.WhyStale:
		s.fwd, s.detail = why, ""
	case cache.WhyMinXid: // there was an answer, but the request's own terms forbade it
		s.fwd = "request"
	}
	return s
}

// serve answers with an entry: its owner is checked, a negative one is 404, a
// matching If-None-Match is 304.
func (x *exchange) serve(v *view.View, e cache.Entry, from source) error {
	if e.View != v.Name {
		return fmt.Errorf("an entry of %s in answer to a request for %s", e.View, v.Name)
	}
	h := x.Header()
	s := x.server
	h["Vary"] = s.fixed.varyOf(v)
	h["X-Cache"] = s.fixed.marks(from.mark)
	if e.Negative || e.Owned && !x.caller.owns(e.Owner) {
		if v.HTTP.Key != view.Caller {
			return x.hide()
		}
		h["Cache-Status"] = []string{from.cacheStatus(false, 0)}
		return notFound()
	}
	values := &x.values
	values.begin("Cache-Status")
	values.text = from.appendCacheStatus(values.text, true, floorSeconds(e.FreshUntil.Sub(from.at)))
	values.begin("Etag")
	values.text = appendTag(values.text, e.ETag, e.Body)
	values.begin("Age")
	values.text = strconv.AppendInt(values.text, max(floorSeconds(from.at.Sub(e.Saved)), 0), 10)
	h["Cache-Control"] = s.fixed.revalidate
	if matches(x.request.Header["If-None-Match"], e.ETag) {
		x.WriteHeader(http.StatusNotModified)
		return nil
	}
	h["Content-Type"] = s.fixed.json
	body := x.encode(e.ETag, e.Body)
	x.WriteHeader(http.StatusOK)
	_, _ = x.Write(body) // the client may be gone; of HEAD's answer net/http sends no body
	return nil
}

// hide is the answer about what is not there and about what is another's: that the
// cache has nothing for this caller. Whether it had something would tell them apart,
// since somebody's run is often cached before anybody else asks, and one that does not
// exist never is. So would the time that it took, to the microsecond.
func (x *exchange) hide() error {
	x.markMiss()
	x.hidden = true
	return notFound()
}

func notFound() *Problem { return problem(kindNotFound, "there is nothing here, or it is not yours") }

// cacheStatus is the value of Cache-Status.
func (f source) cacheStatus(withTTL bool, left int64) string {
	return string(f.appendCacheStatus(nil, withTTL, left))
}

// appendCacheStatus writes the value of Cache-Status.
func (f source) appendCacheStatus(b []byte, withTTL bool, left int64) []byte {
	b = append(b, "mythic-cache"...)
	if f.fwd == "" {
		b = append(b, "; hit"...)
	} else {
		b = append(b, "; fwd="...)
		b = append(b, f.fwd...)
	}
	if withTTL {
		b = append(b, "; ttl="...)
		b = strconv.AppendInt(b, left, 10)
	}
	if f.stored {
		b = append(b, "; stored"...)
	}
	if f.collapsed {
		b = append(b, "; collapsed"...)
	}
	if f.detail != "" { // one of our own words
		b = append(b, `; detail="`...)
		b = append(b, f.detail...)
		b = append(b, '"')
	}
	if f.near && f.detail == "" {
		b = append(b, "; detail=near"...)
	}
	return b
}

// floorSeconds rounds towards the past, so that ttl=0 means less than a second.
func floorSeconds(d time.Duration) int64 {
	seconds := int64(d / time.Second)
	if d < 0 && d%time.Second != 0 {
		seconds--
	}
	return seconds
}

// matches reports whether one of the entity tags of If-None-Match is the entry's.
// The comparison is the weak one (RFC 9110, 13.1.2). Our tags hold no comma.
func matches(values []string, etag string) bool {
	for _, value := range values {
		for tag := range strings.SplitSeq(value, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}
