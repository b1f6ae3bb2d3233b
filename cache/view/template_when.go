package view

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Trigger is a kind of event that begins a template.
type Trigger struct {
	Type string
	View string // of a table's event: the view whose key the subject is
	When []Condition
}

// Condition is what an event's data has to say: all of its members. Of several
// conditions one is enough; where there is none, every event will do.
type Condition []member

// member is a member of an event's data, and the values that it may have.
type member struct {
	path []string
	says []any // bool, json.Number or string
}

// meets reports whether an event's data will do.
func (t Trigger) meets(data []byte) bool {
	if len(t.When) == 0 {
		return true
	}
	var said any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&said); err != nil {
		return false
	}
	return slices.ContainsFunc(t.When, func(c Condition) bool { return c.met(said) })
}

func (c Condition) met(said any) bool {
	for _, m := range c {
		value := said
		for _, name := range m.path {
			members, _ := value.(map[string]any)
			value = members[name]
		}
		if !slices.ContainsFunc(m.says, func(want any) bool { return equal(want, value) }) {
			return false
		}
	}
	return true
}

// equal compares two scalars of JSON. Numbers are equal whose values are.
func equal(a, b any) bool {
	an, aNumber := a.(json.Number)
	bn, bNumber := b.(json.Number)
	if aNumber && bNumber {
		x, errX := an.Float64()
		y, errY := bn.Float64()
		return an == bn || errX == nil && errY == nil && x == y
	}
	switch b.(type) {
	case bool, string:
		return a == b
	}
	return false
}

// triggers reads which events begin a template.
func (r *reader) triggers(what string, n ast.Node, views *Set) []Trigger {
	fields, ok := r.fields(what, n)
	if ok && len(fields) == 0 {
		r.faultf(tokenOf(n), "%s names no event", what)
	}
	var all []Trigger
	for _, f := range fields {
		switch {
		case !eventType.MatchString(f.name):
			r.faultf(f.key.GetToken(), "%s: %s is no event's type; write <topic>.<what happened>", what, f.name)
			continue
		case slices.Contains([]string{"fill", "ai", "session", "dead", "position", "parked"}, topicOf(f.name)):
			r.faultf(f.key.GetToken(), "%s: events of topic %s begin no template", what, topicOf(f.name))
			continue
		}
		t := Trigger{Type: f.name}
		what := what + "." + f.name
		if _, scalar := plain(f.value); scalar {
			t.View = r.mappedView(what, f, views)
		} else {
			t.When = r.conditions(what, f.value)
		}
		all = append(all, t)
	}
	return all
}

// mappedView reads the view whose key is the subject of a table's event.
func (r *reader) mappedView(what string, f field, views *Set) string {
	name, ok := r.text(what, f.value)
	if !ok {
		return ""
	}
	v, known := views.Lookup(name)
	switch {
	case !known:
		r.faultf(tokenOf(f.value), "%s is %s, which is no view; write a view's name, or {} for every event of the app", what, name)
	case !slices.ContainsFunc(v.Tables, func(m Mapping) bool { return m.Topic()+".changed" == f.name }):
		r.faultf(tokenOf(f.value), "%s: view %s maps no table whose changes are %s", what, name, f.name)
	}
	return name
}

// conditions reads one condition, or several of which one is enough.
func (r *reader) conditions(what string, n ast.Node) []Condition {
	nodes := []ast.Node{n}
	if list, ok := n.(*ast.SequenceNode); ok {
		nodes = list.Values
		if len(nodes) == 0 {
			r.faultf(tokenOf(n), "%s is empty; write {} for every event", what)
		}
	}
	var all []Condition
	for _, one := range nodes {
		fields, ok := r.fields(what, one)
		if ok && len(fields) == 0 {
			if len(nodes) > 1 {
				r.faultf(tokenOf(one), "%s: {} is true of every event, so the others say nothing", what)
			}
			return nil
		}
		var c Condition
		for _, f := range fields {
			m := member{path: strings.Split(f.name, ".")}
			if slices.Contains(m.path, "") {
				r.faultf(f.key.GetToken(), "%s: %s is no member of an event's data; write names with dots between", what, f.name)
			}
			m.says = r.values(what+"."+f.name, f.value)
			c = append(c, m)
		}
		all = append(all, c)
	}
	return all
}

// values reads a scalar, or a list of those of which one is enough.
func (r *reader) values(what string, n ast.Node) []any {
	if list, ok := n.(*ast.SequenceNode); ok {
		var all []any
		for _, one := range list.Values {
			all = append(all, r.values(what, one)...)
		}
		if len(all) == 0 {
			r.faultf(tokenOf(n), "%s is empty", what)
		}
		return all
	}
	switch n := n.(type) {
	case *ast.BoolNode:
		return []any{n.Value}
	case *ast.IntegerNode, *ast.FloatNode:
		number, ok := numberOf(n)
		if !ok {
			r.faultf(tokenOf(n), "%s is no number of JSON", what)
		}
		return []any{json.Number(number)}
	}
	text, _ := r.text(what, n)
	return []any{text}
}

// numberOf writes a number of YAML as JSON does.
func numberOf(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.IntegerNode:
		switch v := n.Value.(type) {
		case int64:
			return strconv.FormatInt(v, 10), true
		case uint64:
			return strconv.FormatUint(v, 10), true
		}
	case *ast.FloatNode:
		if text, err := json.Marshal(n.Value); err == nil {
			return string(text), true
		}
	}
	return "", false
}
