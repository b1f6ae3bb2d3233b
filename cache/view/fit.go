package view

import (
	"regexp"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml/token"
)

var parameter = regexp.MustCompile(`\$(\d+)`)

// fits checks what no field shows alone. at holds the fields that are there.
func (r *reader) fits(v *View, at map[string]field) {
	if v.Model {
		for _, name := range []string{"tables", "owners"} {
			if f, ok := at[name]; ok {
				r.faultf(f.key.GetToken(), "%s.%s: a view that a model answers reads no tables", v.Name, name)
			}
		}
		if v.OnChange == Precompute {
			r.faultf(tokenOf(at["on_change"].value), "%s.on_change: a view that a model answers cannot be precomputed from rows", v.Name)
		}
	}
	if f, ok := at["load"]; ok && v.Load != "" && len(v.Key) > 0 {
		r.parameters(v, f)
	}
	if f, ok := at["http"]; ok && v.HTTP != nil {
		if v.HTTP.Key == Caller && len(v.Key) > 1 {
			r.faultf(f.key.GetToken(), "%s.http: the caller alone cannot be a key of %d parts", v.Name, len(v.Key))
		}
		if v.HTTP.Watch != "" && v.OnChange != Precompute {
			r.faultf(f.key.GetToken(), "%s.http.watch: only a view with on_change: precompute can be watched, since its entries come back by themselves", v.Name)
		}
		r.free(v, f.key.GetToken())
	}
}

// parameters checks that the query takes each part of the key.
func (r *reader) parameters(v *View, f field) {
	used := make([]bool, len(v.Key))
	var beyond []string
	for _, found := range parameter.FindAllStringSubmatch(v.Load, -1) {
		n, err := strconv.Atoi(found[1])
		if err == nil && n >= 1 && n <= len(used) {
			used[n-1] = true
		} else if !slices.Contains(beyond, found[0]) {
			beyond = append(beyond, found[0])
			r.faultf(tokenOf(f.value), "%s.load takes %s, but the key has %d part(s)", v.Name, found[0], len(v.Key))
		}
	}
	for i, ok := range used {
		if !ok {
			r.faultf(tokenOf(f.value), "%s.load does not take $%d, the key's %s", v.Name, i+1, v.Key[i])
		}
	}
}

// free checks that no view read before is served where this one is.
func (r *reader) free(v *View, at *token.Token) {
	for _, path := range r.paths {
		if clash(path, v.HTTP.Path) {
			r.faultf(at, "%s.http: the paths %s and %s cannot be told apart", v.Name, path, v.HTTP.Path)
		}
	}
	r.paths = append(r.paths, v.HTTP.Path)
}
