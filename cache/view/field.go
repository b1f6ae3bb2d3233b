package view

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

var (
	// tableName is what CREATE TRIGGER … ON takes: folded to lower case already,
	// or quoted.
	tableName = regexp.MustCompile(`^(?:([a-z_][a-z0-9_$]*|"[A-Za-z0-9_$]+")\.)?([a-z_][a-z0-9_$]*|"[A-Za-z0-9_$]+")$`)
	eventType = regexp.MustCompile(`^[A-Za-z0-9_\-]+\.[A-Za-z0-9_.\-]+$`)
	readsRows = regexp.MustCompile(`(?i)\bchanged\b`)
)

// reservedTopic reports whether a stream of that name carries something else
// than changes of a table.
func reservedTopic(topic string) bool {
	return slices.Contains([]string{"fill", "run", "ai", "session", "dead", "position", "parked"}, topic)
}

func (r *reader) key(what string, n ast.Node) []string {
	items := r.items(what, n)
	var parts []string
	for _, item := range items {
		name, ok := r.text(what, item)
		switch {
		case !ok:
		case !partName.MatchString(name):
			r.faultf(tokenOf(item), "%s: %s is no name of letters, digits and _", what, name)
		case slices.Contains(parts, name):
			r.faultf(tokenOf(item), "%s has %s twice", what, name)
		default:
			parts = append(parts, name)
		}
	}
	if _, list := n.(*ast.SequenceNode); list && len(items) == 0 {
		r.faultf(tokenOf(n), "%s is empty; a key has one part at least", what)
	}
	return parts
}

func (r *reader) change(what string, n ast.Node) Change {
	said, ok := r.text(what, n)
	if ok && said != string(Invalidate) && said != string(Precompute) {
		r.faultf(tokenOf(n), "%s is %s; it must be invalidate or precompute", what, said)
	}
	return Change(said)
}

func (r *reader) duration(what string, n ast.Node) time.Duration {
	said, ok := r.text(what, n)
	if !ok {
		return 0
	}
	d, err := parseTTL(said)
	if err != nil {
		r.faultf(tokenOf(n), "%s: %v", what, err)
	}
	return d
}

// truth reads true or false.
func (r *reader) truth(what string, n ast.Node) bool {
	said, ok := r.text(what, n)
	if ok && said != "true" && said != "false" {
		r.faultf(tokenOf(n), "%s is %s; it must be true or false", what, said)
	}
	return said != "false"
}

// load returns a view's query, or that a model answers instead.
func (r *reader) load(what string, n ast.Node) (query string, model bool) {
	said, _ := r.text(what, n)
	if said == "model" {
		return "", true
	}
	return statement(said), false
}

// statement strips what keeps a query from standing inside another.
func statement(sql string) string { return strings.TrimRight(sql, "; \t\r\n") }

func (r *reader) mappings(what string, n ast.Node) []Mapping {
	fields, _ := r.fields(what, n)
	var mappings []Mapping
	for _, f := range fields {
		said, ok := r.text(what+"."+f.name, f.value)
		if !ok {
			continue
		}
		m := Mapping{Table: f.name, SQL: statement(said), Line: f.key.GetToken().Position.Line}
		if !tableName.MatchString(f.name) {
			r.faultf(f.key.GetToken(), "%s: %s is no table's name; write it as table or schema.table, in lower case or in double quotes", what, f.name)
			continue
		}
		if reservedTopic(m.Topic()) {
			r.faultf(f.key.GetToken(), "%s: the changes of a table named %s would travel in a stream of our own", what, m.Topic())
		}
		if !readsRows.MatchString(m.SQL) {
			r.faultf(tokenOf(f.value), "%s.%s does not read from changed, the rows that changed", what, f.name)
		}
		// One of the two has no schema, so both may be the same table.
		for _, other := range mappings {
			if other.Topic() == m.Topic() && strings.Contains(other.Table, ".") != strings.Contains(m.Table, ".") {
				r.faultf(f.key.GetToken(), "%s has %s and %s, which may be the same table", what, other.Table, m.Table)
			}
		}
		mappings = append(mappings, m)
	}
	return mappings
}

func (r *reader) events(what string, n ast.Node) []string {
	fields, _ := r.fields(what, n)
	var types []string
	for _, f := range fields {
		switch {
		case !eventType.MatchString(f.name):
			r.faultf(f.key.GetToken(), "%s: %s is no event's type; write <topic>.<what happened>", what, f.name)
		case slices.Contains([]string{"fill", "dead", "position", "parked"}, topicOf(f.name)):
			r.faultf(f.key.GetToken(), "%s: %s would travel in a stream of our own", what, f.name)
		default:
			types = append(types, f.name)
		}
		if said, ok := r.text(what+"."+f.name, f.value); ok && said != "subject" {
			r.faultf(tokenOf(f.value), "%s.%s is %s; the key can only come from the event's subject", what, f.name, said)
		}
	}
	return types
}

func (r *reader) http(what string, n ast.Node) *HTTP {
	fields, ok := r.fields(what, n)
	if !ok {
		return nil
	}
	var h HTTP
	var atPath, atKey ast.Node
	for _, f := range fields {
		switch f.name {
		case "path":
			h.Path, _ = r.text(what+".path", f.value)
			atPath = f.value
		case "key":
			h.Key, _ = r.text(what+".key", f.value)
			atKey = f.value
		case "watch":
			h.Watch = r.watch(what+".watch", f.value)
		default:
			r.faultf(f.key.GetToken(), "unknown field %s in %s; there are path, key and watch", f.name, what)
		}
	}
	if atPath == nil {
		r.faultf(tokenOf(n), "%s has no path", what)
	}
	if atKey == nil {
		r.faultf(tokenOf(n), "%s has no key; it is caller, or the name of the path's wildcard", what)
	}
	if h.Path == "" || h.Key == "" {
		return nil
	}
	return r.route(what, h, atPath, atKey)
}

// watch reads the name of a view's server-sent events.
func (r *reader) watch(what string, n ast.Node) string {
	said, ok := r.text(what, n)
	if ok && !viewName.MatchString(said) {
		r.faultf(tokenOf(n), "%s is %s; it names events in lower-case letters, digits and _", what, said)
	}
	return said
}
