package lane

import (
	"net/http"
	"net/url"
)

// turn is a request and its answer, used again for another.
type turn struct {
	request *http.Request
	url     url.URL
	header  http.Header
	values  [maxFields]string // of the header
	body    body
	answer
}

// maxFields is more than a request can have, each at most once.
const maxFields = 64

// maxKept is how many bytes of an answer a turn may hold on to.
const maxKept = 64 << 10

// turn returns an empty one.
func (l *Lane) turn() *turn {
	if t, used := l.turns.Get().(*turn); used {
		return t
	}
	return &turn{request: new(http.Request), header: http.Header{}, answer: answer{header: http.Header{}, names: make([]string, 0, maxFields)}}
}

// done takes a turn back.
func (l *Lane) done(t *turn) {
	clear(t.header)
	t.body.left = nil
	clear(t.answer.header)
	text := t.text[:0]
	if cap(text) > maxKept {
		text = nil
	}
	clear(t.names)
	t.answer = answer{header: t.answer.header, names: t.names[:0], text: text}
	l.turns.Put(t)
}
