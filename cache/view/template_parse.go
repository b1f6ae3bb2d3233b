package view

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// ParseTemplates reads a file of templates, which are about these views. File, lookup
// and the error are as with Parse.
func ParseTemplates(file string, text []byte, views *Set, lookup func(name string) (string, bool)) (*Templates, error) {
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	r := &reader{file: file, holds: "templates", lookup: lookup}
	var all []*Template
	if root, ok := r.document(text); ok {
		for _, n := range r.members(root) {
			all = append(all, r.template(n, views))
		}
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return &Templates{all: all}, nil
}

func placeOf(file string, line int) string { return fmt.Sprintf("%s:%d", file, line) }

// template reads one template. What it returns is whole only when there was no mistake.
func (r *reader) template(n field, views *Set) *Template {
	t := &Template{Name: n.name, file: r.file, lines: map[string]int{"": n.key.GetToken().Position.Line}}
	r.named("template", n)
	fields, ok := r.fields("template "+n.name, n.value)
	if !ok {
		return t
	}
	at := make(map[string]field, len(fields))
	for _, f := range fields {
		at[f.name] = f
		t.lines[f.name] = f.key.GetToken().Position.Line
		what := n.name + "." + f.name
		switch f.name {
		case "on":
			t.On = r.triggers(what, f.value, views)
		case "rows":
			t.Rows = r.rows(what, f.value)
		case "scope":
			t.Scope = r.scope(what, f.value)
		case "request":
			t.request = r.body(what, f.value, t)
		default:
			r.faultf(f.key.GetToken(), "unknown field %s in template %s; there are on, rows, scope, request", f.name, n.name)
		}
	}
	r.needs("template", n, at, "on", "rows", "scope", "request")
	for _, on := range t.On {
		if on.View != "" && t.TakesData() {
			r.faultf(tokenOf(at["rows"].value), "%s.rows takes $2, the event's data, of which %s has none", n.name, on.Type)
		}
	}
	return t
}

// rows reads the query. Its parameters are the event's.
func (r *reader) rows(what string, n ast.Node) string {
	said, ok := r.text(what, n)
	if !ok {
		return ""
	}
	for _, found := range parameter.FindAllString(said, -1) {
		if found != "$1" && found != "$2" {
			r.faultf(tokenOf(n), "%s takes %s; there are $1, the event's subject, and $2, its data", what, found)
			break
		}
	}
	if !strings.Contains(said, "$1") && !strings.Contains(said, "$2") {
		r.faultf(tokenOf(n), "%s takes neither $1, the event's subject, nor $2, its data: every event would ask the same", what)
	}
	return statement(said)
}

// columnName is what a query's column is called without quotes.
var columnName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

func (r *reader) scope(what string, n ast.Node) string {
	said, ok := r.text(what, n)
	if ok && !columnName.MatchString(said) {
		r.faultf(tokenOf(n), "%s is %s; it must be %s, %s, or a column of the rows that names a user", what, said, SharedScope, AppScope)
	}
	return said
}
