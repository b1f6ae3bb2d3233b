package api

import (
	"bytes"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

type topicKey struct{ view, key string }

// topic is an entry that somebody watches. All but what it was made with is guarded
// by the hub's lock.
type topic struct {
	on    topicKey
	view  *view.View
	watch *cache.Watch

	newest   *change
	watchers map[watcher]struct{}
	due      time.Time // when to look at it again
	asked    time.Time // when it was last asked for
}

// change is what an entry has become, made ready once for all who watch it. It does
// not change any more.
type change struct {
	entry    cache.Entry // Body lies within event where it can
	at       time.Time   // when it was so, by the clock of Redis
	received time.Time   // and when that was heard here
	event    []byte      // as a server-sent event; nil where Negative
}

// now is the time of Redis, as far as the change can tell.
func (c *change) now() time.Time { return c.at.Add(time.Since(c.received)) }

// learn takes in what the entry is, and reports whether that is news: it is at least
// as new as what is known. It is called with the hub's lock held.
func (t *topic) learn(e cache.Entry, at time.Time) bool {
	old := t.newest
	if old != nil {
		if order := e.Version.Compare(old.entry.Version); order < 0 || order == 0 && !e.Saved.After(old.entry.Saved) {
			return false
		}
	}
	// Of the snapshot the version is enough here.
	e.Snapshot = version.Snapshot{}
	c := &change{entry: e, at: at, received: time.Now()}
	switch {
	case e.Negative:
	case old != nil && old.entry.ETag == e.ETag:
		c.event, c.entry.Body = old.event, old.entry.Body
	default:
		c.event, c.entry.Body = encodeEvent(t.view.HTTP.Watch, e)
	}
	t.newest = c
	return true
}

// encodeEvent writes an entry as an event of the HTML standard's section 9.2.6, and
// returns it with the body that lies within. The id is the entity tag, so that a
// client that comes back tells any process what it has.
func encodeEvent(name string, e cache.Entry) (text, body []byte) {
	b := make([]byte, 0, len("id: \nevent: \ndata: \n\n")+len(e.ETag)+len(name)+len(e.Body))
	b = append(b, "id: "...)
	b = append(b, e.ETag...)
	b = append(b, "\nevent: "...)
	b = append(b, name...)
	b = append(b, "\ndata: "...)
	begun := len(b)
	if bytes.IndexByte(e.Body, '\n') < 0 && bytes.IndexByte(e.Body, '\r') < 0 {
		b = append(b, e.Body...)
		return append(b, "\n\n"...), b[begun:len(b):len(b)]
	}
	// In JSON, line breaks are white space: those of the event's format will do.
	for i, line := range bytes.FieldsFunc(e.Body, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if i > 0 {
			b = append(b, "\ndata: "...)
		}
		b = append(b, line...)
	}
	return append(b, "\n\n"...), e.Body
}
