package view

import (
	"strings"
	"time"
)

// Change says what the workers do with a key whose rows changed.
type Change string

// The two answers to a change. Both drop the entry at once; Precompute loads it
// again without waiting for a reader.
const (
	Invalidate Change = "invalidate"
	Precompute Change = "precompute"
)

// Caller is the HTTP key of a view whose one key is whoever asks.
const Caller = "caller"

// View is one kind of cached entry.
type View struct {
	Name     string
	Key      []string      // the names of the key's parts
	OnChange Change        //
	TTL      time.Duration // how long an entry is fresh
	Negative time.Duration // how long "there is no such row" is fresh
	Fresh    bool          // entries are served while they are fresh, never as Stale
	Load     string        // one row, $1 … are the key's parts: a JSON document and, where the entry belongs to somebody, a column named owner
	Model    bool          // loaded from a language model; Load is empty
	Tables   []Mapping     // which keys a table's changed rows concern
	Owners   []Mapping     // key and owner of rows that must be remembered for ever
	Events   []string      // types of the app's own events whose subject is a key of this view
	HTTP     *HTTP         // nil: not served
	Line     int           // where the views file says so
}

// Mapping is a query over the changed rows of one table, which it knows by the
// name "changed" (old and new rows of one statement together).
type Mapping struct {
	Table string // as PostgreSQL resolves it: books, public.books, mythic_cache.run_events
	SQL   string // selects the key's parts, in order
	Line  int    // where the views file says so
}

// Topic returns the table's name without its schema and quotes: the stream that
// its changes travel in.
func (m Mapping) Topic() string {
	name := m.Table
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	return strings.Trim(name, `"`)
}

// ValidName reports whether a view may have that name.
func ValidName(name string) bool {
	return viewName.MatchString(name) && len(name) <= 63 && !reservedView(name)
}

// HTTP says where a view is served.
type HTTP struct {
	Path string // a net/http pattern without method, such as /status/{run_id}
	Key  string // Caller, or the name of the path's wildcard
	// Watch is the name of the events that those get who watch an entry; empty
	// where it cannot be watched. Only a view that is precomputed can: its entries
	// come back by themselves after a change.
	Watch string
}

// Mapped returns the mapping of a table, or nil.
func (v *View) Mapped(table string) *Mapping {
	for i := range v.Tables {
		if v.Tables[i].Table == table {
			return &v.Tables[i]
		}
	}
	return nil
}

// JoinKey makes one key of a view's key parts: a single part is the key itself;
// of several, percent signs and colons are escaped and colons join them.
// mythic_cache.join_key does the same in SQL.
func JoinKey(parts ...string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	escape := strings.NewReplacer("%", "%25", ":", "%3A")
	escaped := make([]string, len(parts))
	for i, part := range parts {
		escaped[i] = escape.Replace(part)
	}
	return strings.Join(escaped, ":")
}

// SplitKey undoes JoinKey for a view with n key parts, and reports whether the
// key has that many.
func SplitKey(key string, n int) ([]string, bool) {
	if n == 1 {
		return []string{key}, true
	}
	parts := strings.Split(key, ":")
	if len(parts) != n {
		return nil, false
	}
	unescape := strings.NewReplacer("%3A", ":", "%25", "%")
	for i, part := range parts {
		parts[i] = unescape.Replace(part)
	}
	return parts, true
}
