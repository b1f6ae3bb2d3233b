package view

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// Set is the views of one file. It never changes.
type Set struct {
	file   string
	views  []*View
	byName map[string]*View
}

func newSet(file string, views []*View) *Set {
	s := &Set{file: file, views: views, byName: make(map[string]*View, len(views))}
	for _, v := range views {
		s.byName[v.Name] = v
	}
	return s
}

// File returns the name that the views were parsed under, for messages that add
// a line of it.
func (s *Set) File() string { return s.file }

// All returns the views in the order of the file. The slice is the caller's.
func (s *Set) All() []*View { return slices.Clone(s.views) }

// Lookup returns the view of that name.
func (s *Set) Lookup(name string) (*View, bool) {
	v, ok := s.byName[name]
	return v, ok
}

// ForEvent returns the views whose keys an app's event of that type names as its
// subject, in the order of the file.
func (s *Set) ForEvent(eventType string) []*View {
	var named []*View
	for _, v := range s.views {
		if slices.Contains(v.Events, eventType) {
			named = append(named, v)
		}
	}
	return named
}

// TableTopics returns the topics of every table that some view maps, sorted.
func (s *Set) TableTopics() []string {
	return s.tableTopics(func(*View) bool { return true })
}

// PrecomputeTopics returns the topics of the tables of those views that are
// loaded again as soon as they change, sorted.
func (s *Set) PrecomputeTopics() []string {
	return s.tableTopics(func(v *View) bool { return v.OnChange == Precompute })
}

func (s *Set) tableTopics(wanted func(*View) bool) []string {
	var topics []string
	for _, v := range s.views {
		if !wanted(v) {
			continue
		}
		for _, m := range v.Tables {
			topics = append(topics, m.Topic())
		}
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// EventTopics returns the topics of the app's own events that some view names,
// sorted.
func (s *Set) EventTopics() []string {
	var topics []string
	for _, v := range s.views {
		for _, eventType := range v.Events {
			topics = append(topics, topicOf(eventType))
		}
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// Digest returns a hash over all that the triggers are generated from, and over
// nothing else: a changed TTL or path leaves it as it is, and so does the order
// of the views and of their tables.
func (s *Set) Digest() string {
	type rule struct{ View, Kind, Table, SQL string }
	type shape struct {
		View string
		Keys int
	}
	var rules []rule
	var shapes []shape
	for _, v := range s.views {
		shapes = append(shapes, shape{v.Name, len(v.Key)})
		for _, m := range v.Tables {
			rules = append(rules, rule{v.Name, "tables", m.Table, m.SQL})
		}
		for _, m := range v.Owners {
			rules = append(rules, rule{v.Name, "owners", m.Table, m.SQL})
		}
	}
	slices.SortFunc(shapes, func(a, b shape) int { return compareAll(a.View, b.View) })
	slices.SortFunc(rules, func(a, b rule) int { return compareAll(a.View, b.View, a.Kind, b.Kind, a.Table, b.Table) })
	hash := sha256.New()
	for _, s := range shapes {
		fmt.Fprintf(hash, "view %q %d\n", s.View, s.Keys)
	}
	for _, r := range rules {
		fmt.Fprintf(hash, "%s %q %q %q\n", r.Kind, r.View, r.Table, r.SQL)
	}
	return hex.EncodeToString(hash.Sum(nil))
}
