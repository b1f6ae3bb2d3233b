package view

import (
	_ "embed" // the built-in templates
	"slices"
	"strings"
)

//go:embed mythic_warm.yaml
var mythicWarmYAML string

// MythicWarm returns the built-in templates file, for the built-in model: what its
// prompts say is of the demo alone.
func MythicWarm() []byte { return []byte(mythicWarmYAML) }

// Template says which prompts are asked ahead of anybody, and when: an event begins
// it, a query tells rows, and each row makes one request of a model.
type Template struct {
	Name    string
	On      []Trigger
	Rows    string   // SQL: $1 is the event's subject, $2 its data as jsonb
	Scope   string   // SharedScope, AppScope, or the column of the rows that says whose an answer is
	Model   string   // as the request names it; empty: the default one
	Columns []string // of the rows that the request always reads, sorted

	file    string
	lines   map[string]int
	request part
}

// Scopes that are no columns.
const (
	SharedScope = "shared" // everybody's
	AppScope    = "app"    // the app's own, on nobody's behalf
)

// Place returns FILE:LINE of the template, or of one of its fields that it has.
func (t *Template) Place(field string) string {
	line, ok := t.lines[field]
	if !ok {
		line = t.lines[""]
	}
	return placeOf(t.file, line)
}

// Templates are those of one file. They never change.
type Templates struct{ all []*Template }

// All returns the templates in the order of the file. The slice is the caller's. Of
// nil there are none.
func (s *Templates) All() []*Template {
	if s == nil {
		return nil
	}
	return slices.Clone(s.all)
}

// Names returns the names of the templates.
func (s *Templates) Names() []string {
	var names []string
	for _, t := range s.All() {
		names = append(names, t.Name)
	}
	return names
}

// Topics returns the topics of the events that begin a template, sorted.
func (s *Templates) Topics() []string {
	var topics []string
	for _, t := range s.All() {
		for _, on := range t.On {
			topics = append(topics, topicOf(on.Type))
		}
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// Begins reports whether an event of a type, a view (empty where it is not of a
// table) and data begins the template.
func (t *Template) Begins(eventType, ofView string, data []byte) bool {
	return slices.ContainsFunc(t.On, func(on Trigger) bool {
		return on.Type == eventType && on.View == ofView && on.meets(data)
	})
}

// takes reports whether the rows' query has a parameter.
func (t *Template) takes(parameter string) bool { return strings.Contains(t.Rows, parameter) }

// TakesData reports whether the rows depend on the event's data, and not on its
// subject alone.
func (t *Template) TakesData() bool { return t.takes("$2") }
