package view

import (
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

var (
	wildcard = regexp.MustCompile(`^\{([A-Za-z_][A-Za-z0-9_]*)\}$`)
	literal  = regexp.MustCompile(`^[A-Za-z0-9._~\-]+$`)
)

// ownPaths are GET routes that the API has whatever the views are.
func ownPaths() []string {
	return []string{"/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/events", "/health/redis", "/cache/stats"}
}

// route checks a path, and that the key comes from it or from the caller.
func (r *reader) route(what string, h HTTP, atPath, atKey ast.Node) *HTTP {
	segments, ok := strings.CutPrefix(h.Path, "/")
	if !ok {
		r.faultf(tokenOf(atPath), "%s.path is %s; a path begins with /", what, h.Path)
		return nil
	}
	var names []string
	for segment := range strings.SplitSeq(segments, "/") {
		name := wildcard.FindStringSubmatch(segment)
		switch {
		case name != nil:
			names = append(names, name[1])
		case !literal.MatchString(segment) || segment == "." || segment == "..":
			r.faultf(tokenOf(atPath), "%s.path: %q is neither a plain part of a path nor a {wildcard}", what, segment)
			return nil
		}
	}
	switch {
	case len(names) > 1:
		r.faultf(tokenOf(atPath), "%s.path has %d wildcards; the key comes from one", what, len(names))
	case h.Key == Caller && len(names) == 1:
		r.faultf(tokenOf(atPath), "%s.path has the wildcard {%s}, but the key is the caller", what, names[0])
	case h.Key != Caller && !slices.Contains(names, h.Key):
		r.faultf(tokenOf(atKey), "%s.key is %s; it must be caller or the name of the path's wildcard", what, h.Key)
	default:
		if own := slices.IndexFunc(ownPaths(), func(p string) bool { return p == h.Path }); own >= 0 {
			r.faultf(tokenOf(atPath), "%s.path is %s, which the API has already", what, h.Path)
			return nil
		}
		return &h
	}
	return nil
}

// clash reports whether a request could match both paths with neither being the
// more specific one, as a net/http mux would refuse.
func clash(a, b string) bool {
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	if len(as) != len(bs) {
		return false
	}
	var aWider, bWider bool
	for i := range as {
		aWild, bWild := wildcard.MatchString(as[i]), wildcard.MatchString(bs[i])
		if !aWild && !bWild && as[i] != bs[i] {
			return false
		}
		aWider = aWider || aWild && !bWild
		bWider = bWider || bWild && !aWild
	}
	return aWider == bWider
}
