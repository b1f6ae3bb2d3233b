package view

import (
	_ "embed" // the built-in views
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

//go:embed mythic.yaml
var mythicYAML string

// Mythic returns the built-in views file.
func Mythic() []byte { return []byte(mythicYAML) }

// defaultTTL is how long a view that names no TTL keeps its entries: the
// variable of that name, or an hour.
const (
	defaultTTL      = "${REDIS_CACHE_TTL:1h}"
	defaultNegative = 10 * time.Second
)

var (
	viewName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	partName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// reservedView tells the names that other keys and channels of ours already begin with.
func reservedView(name string) bool {
	return slices.Contains([]string{
		"view", "rate", "session", "revoked", "report", "stream", "filled",
		"ai_asked", "ai_budget", "ai_costs", "ai_dropped", "ai_failed", "ai_flow", "ai_forgotten", "ai_line", "ai_scope",
	}, name)
}

// Parse reads a views file. The name of the file is for the errors; lookup gives
// the value of a ${NAME}, and may be nil when there is none. The error joins all
// mistakes of the file in its order, each FILE:LINE:COL: what is wrong.
func Parse(file string, text []byte, lookup func(name string) (string, bool)) (*Set, error) {
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	r := &reader{file: file, holds: "views", lookup: lookup}
	var views []*View
	if root, ok := r.document(text); ok {
		for _, n := range r.members(root) {
			views = append(views, r.view(n))
		}
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return newSet(file, views), nil
}

// document returns the one value that the file holds.
func (r *reader) document(text []byte) (ast.Node, bool) {
	// A name that comes twice is for fields to report, with all else.
	tree, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		if syntax, ok := errors.AsType[yaml.Error](err); ok {
			r.faultf(syntax.GetToken(), "%s", syntax.GetMessage())
		} else {
			r.faultf(nil, "%v", err)
		}
		return nil, false
	}
	var bodies []ast.Node
	for _, doc := range tree.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	if len(bodies) == 0 {
		r.faultf(nil, "the file is empty; it must hold %s", r.holds)
		return nil, false
	}
	for _, more := range bodies[1:] {
		r.faultf(tokenOf(more), "a %s file holds one document; this is another", r.holds)
	}
	return bodies[0], true
}

// members returns what the file holds, by its names.
func (r *reader) members(root ast.Node) []field {
	fields, ok := r.fields("the file", root)
	if !ok {
		return nil
	}
	var all []field
	held := false
	for _, f := range fields {
		if f.name != r.holds {
			r.faultf(f.key.GetToken(), "unknown field %s; the file holds %s and nothing else", f.name, r.holds)
			continue
		}
		held = true
		named, ok := r.fields(r.holds, f.value)
		if ok && len(named) == 0 {
			r.faultf(f.key.GetToken(), "%s holds no %s", r.holds, strings.TrimSuffix(r.holds, "s"))
		}
		all = append(all, named...)
	}
	if !held {
		r.faultf(tokenOf(root), "%s is missing", r.holds)
	}
	return all
}

// view reads one view. What it returns is whole only when there was no mistake.
func (r *reader) view(n field) *View {
	v := &View{Name: n.name, OnChange: Invalidate, Line: n.key.GetToken().Position.Line}
	if r.named("view", n) && reservedView(n.name) {
		r.faultf(n.key.GetToken(), "view %s: the name is taken by keys of our own", n.name)
	}
	fields, ok := r.fields("view "+n.name, n.value)
	if !ok {
		return v
	}
	at := make(map[string]field, len(fields))
	for _, f := range fields {
		at[f.name] = f
		what := n.name + "." + f.name
		switch f.name {
		case "key":
			v.Key = r.key(what, f.value)
		case "on_change":
			v.OnChange = r.change(what, f.value)
		case "ttl":
			v.TTL = r.duration(what, f.value)
		case "negative":
			v.Negative = r.duration(what, f.value)
		case "stale":
			v.Fresh = !r.truth(what, f.value)
		case "load":
			v.Load, v.Model = r.load(what, f.value)
		case "tables":
			v.Tables = r.mappings(what, f.value)
		case "owners":
			v.Owners = r.mappings(what, f.value)
		case "events":
			v.Events = r.events(what, f.value)
		case "http":
			v.HTTP = r.http(what, f.value)
		default:
			r.faultf(f.key.GetToken(), "unknown field %s in view %s; there are key, on_change, ttl, negative, stale, load, tables, owners, events, http", f.name, n.name)
		}
	}
	r.needs("view", n, at, "key", "load")
	if _, ok := at["ttl"]; !ok {
		v.TTL = r.defaultTTL(n)
	}
	if v.Negative == 0 {
		v.Negative = defaultNegative
	}
	v.Negative = min(v.Negative, v.TTL)
	r.fits(v, at)
	return v
}

// named says where a view or template has no name that can be one.
func (r *reader) named(kind string, n field) bool {
	good := viewName.MatchString(n.name) && len(n.name) <= 63
	if !good {
		r.faultf(n.key.GetToken(), "%s %s: a name is lower-case letters, digits and _, begins with a letter, and has at most 63", kind, n.name)
	}
	return good
}

// needs says which of these fields are not there.
func (r *reader) needs(kind string, n field, there map[string]field, names ...string) {
	for _, name := range names {
		if _, ok := there[name]; !ok {
			r.faultf(n.key.GetToken(), "%s %s has no %s", kind, n.name, name)
		}
	}
}

func (r *reader) defaultTTL(n field) time.Duration {
	said, err := interpolate(defaultTTL, r.lookup)
	if err != nil {
		r.faultf(n.key.GetToken(), "view %s has no ttl: %v", n.name, err)
		return 0
	}
	ttl, err := parseTTL(said)
	if err != nil {
		r.faultf(n.key.GetToken(), "view %s has no ttl, and the default will not do: %v", n.name, err)
	}
	return ttl
}

// compareAll compares pairs of strings, the first pair that differs decides.
func compareAll(pairs ...string) int {
	for i := 0; i+1 < len(pairs); i += 2 {
		if c := strings.Compare(pairs[i], pairs[i+1]); c != 0 {
			return c
		}
	}
	return 0
}

// topicOf returns the part of an event's type before its first dot.
func topicOf(eventType string) string {
	topic, _, _ := strings.Cut(eventType, ".")
	return topic
}
