package view

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// reader walks a YAML tree and keeps every mistake it meets, with its place.
type reader struct {
	file     string
	holds    string // what the file is of: views or templates
	lookup   func(string) (string, bool)
	mistakes []*mistake
	paths    []string // of the views read so far
}

// mistake is one thing wrong with a file.
type mistake struct {
	file      string
	line, col int
	what      string
}

func (m *mistake) Error() string { return fmt.Sprintf("%s:%d:%d: %s", m.file, m.line, m.col, m.what) }

// field is one name and value of a mapping.
type field struct {
	name  string
	key   ast.Node
	value ast.Node
}

// faultf notes a mistake at a place; nil is the file as a whole.
func (r *reader) faultf(at *token.Token, format string, args ...any) {
	m := &mistake{file: r.file, line: 1, col: 1, what: fmt.Sprintf(format, args...)}
	if at != nil && at.Position != nil {
		m.line, m.col = max(at.Position.Line, 1), max(at.Position.Column, 1)
	}
	r.mistakes = append(r.mistakes, m)
}

// err joins the mistakes in the order of the file, or returns nil.
func (r *reader) err() error {
	slices.SortStableFunc(r.mistakes, func(a, b *mistake) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.col, b.col))
	})
	errs := make([]error, len(r.mistakes))
	for i, m := range r.mistakes {
		errs[i] = m
	}
	return errors.Join(errs...)
}

// fields returns the fields of a mapping without the ones that come twice, and
// reports whether the node is a mapping.
func (r *reader) fields(what string, n ast.Node) ([]field, bool) {
	m, ok := n.(ast.MapNode)
	if !ok {
		r.faultf(tokenOf(n), "%s is %s; it must be a mapping of names to values", what, kindOf(n))
		return nil, false
	}
	var fields []field
	for it := m.MapRange(); it.Next(); {
		if it.KeyValue() == nil || it.Key() == nil {
			continue // the parser lets neither be nil
		}
		name, ok := plain(it.Key())
		if !ok {
			r.faultf(it.Key().GetToken(), "%s has a field whose name is %s; names are plain text", what, kindOf(it.Key()))
			continue
		}
		if slices.ContainsFunc(fields, func(f field) bool { return f.name == name }) {
			r.faultf(it.Key().GetToken(), "%s has %s twice", what, name)
			continue
		}
		fields = append(fields, field{name: name, key: it.Key(), value: it.Value()})
	}
	return fields, true
}

// items returns the values of a list.
func (r *reader) items(what string, n ast.Node) []ast.Node {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		r.faultf(tokenOf(n), "%s is %s; it must be a list such as [a, b]", what, kindOf(n))
		return nil
	}
	return list.Values
}

// text returns what a scalar says, variables put in, and whether it says anything.
func (r *reader) text(what string, n ast.Node) (string, bool) {
	raw, ok := plain(n)
	if !ok {
		r.faultf(tokenOf(n), "%s is %s; it must be plain text", what, kindOf(n))
		return "", false
	}
	said, err := interpolate(raw, r.lookup)
	if err != nil {
		r.faultf(tokenOf(n), "%s: %v", what, err)
		return "", false
	}
	if said == "" {
		r.faultf(tokenOf(n), "%s is empty", what)
		return "", false
	}
	return said, true
}

// plain returns the text of a scalar as it stands in the file.
func plain(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		if n.Value == nil {
			return "", true
		}
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// tokenOf returns where a value begins; that of a mapping is its first name, not
// the colon behind it.
func tokenOf(n ast.Node) *token.Token {
	switch n := n.(type) {
	case nil:
		return nil
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	}
	return n.GetToken()
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case nil, *ast.NullNode:
		return "empty"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "an anchor or alias, which views files do without"
	case *ast.TagNode:
		return "tagged, which views files do without"
	}
	return "a scalar"
}
