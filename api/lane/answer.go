package lane

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// inChunks is the length of a body that says by itself where it ends.
const inChunks = -1

// gathered is how many bytes are sent at once. What would be more is not copied.
const gathered = 16 << 10

// answer is what a handler writes to. It gathers what is to be sent. Of one without a
// length, which goes out in chunks, it gathers all, so that it can be left to net/http to
// its end.
type answer struct {
	conn    *conn
	header  http.Header
	status  int      // 0: the handler has not said
	refused bool     // it is not the lane's
	names   []string // of the header, in the order in which they are sent
	text    []byte
	length  int // of the body, as the header says it; inChunks
	written int
	open    bool // in chunks: the handler has not flushed all that it has said
	part    bool // nor the chunk that it has written
	err     error
}

// Header returns the header that is sent with WriteHeader.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader writes down the header, if it is one that the lane can send.
func (a *answer) WriteHeader(status int) {
	if a.status != 0 {
		return
	}
	a.status = status
	if a.refused = !a.sendable(); !a.refused {
		now := time.Now()
		a.text = a.appendHead(a.text, now)
		a.err = a.conn.keep(now)
	}
}

// bodyless reports whether answers of a status have no body.
func bodyless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified
}

// sendable reports whether nothing about the header is for net/http to judge.
func (a *answer) sendable() bool {
	h := a.header
	if a.status < 200 || http.StatusText(a.status) == "" || h["Connection"] != nil || h["Transfer-Encoding"] != nil || h["Trailer"] != nil || h["Date"] != nil {
		return false
	}
	if bodyless(a.status) {
		return h["Content-Length"] == nil && h["Content-Type"] == nil
	}
	length := h["Content-Length"]
	if len(h["Content-Type"]) == 0 || len(length) > 1 {
		return false
	}
	if len(length) == 0 {
		a.length, a.open = inChunks, true
		return true
	}
	var err error
	a.length, err = strconv.Atoi(length[0])
	return err == nil && a.length >= 0
}

// appendHead writes status line and header as net/http does: the names in order, and
// the time after them. Another order would tell how an answer came to be, and so whether
// there is something that the caller may not know of.
func (a *answer) appendHead(b []byte, now time.Time) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(a.status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(a.status)...)
	b = append(b, "\r\n"...)
	for name := range a.header {
		a.names = append(a.names, name)
	}
	slices.Sort(a.names)
	for _, name := range a.names {
		for _, value := range a.header[name] {
			b = append(b, name...)
			b = append(b, ": "...)
			b = appendValue(b, value)
			b = append(b, "\r\n"...)
		}
	}
	b = append(b, "Date: "...)
	b = a.conn.lane.appendDate(b, now)
	b = append(b, "\r\n"...)
	if a.conn.last() {
		b = append(b, "Connection: close\r\n"...)
	}
	if a.length == inChunks {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	return append(b, "\r\n"...)
}

// appendValue writes a value as net/http does: on one line, without space around.
func appendValue(b []byte, value string) []byte {
	at := len(b)
	b = append(b, strings.TrimSpace(value)...)
	for i := at; i < len(b); i++ {
		if b[i] == '\r' || b[i] == '\n' {
			b[i] = ' '
		}
	}
	return b
}

// Write takes a part of the body.
func (a *answer) Write(body []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	switch {
	case a.refused:
		return len(body), nil
	case bodyless(a.status):
		return 0, http.ErrBodyNotAllowed
	case a.length == inChunks:
		return a.chunk(body)
	case len(body) > a.length-a.written:
		return 0, http.ErrContentLength
	case a.err != nil:
		return 0, a.err
	}
	a.written += len(body)
	if a.add(body); a.err != nil {
		return 0, a.err
	}
	return len(body), nil
}

// add adds to what is to be sent. What would be more than is gathered goes out at once.
func (a *answer) add(body []byte) {
	if len(a.text)+len(body) <= gathered {
		a.text = append(a.text, body...)
		return
	}
	if a.send(); a.err == nil {
		_, a.err = a.conn.Write(body)
	}
}

// chunk takes a part of a body in chunks. One that is not flushed net/http would put
// together with the next, and of an answer that is not flushed at all say the length.
func (a *answer) chunk(part []byte) (int, error) {
	switch {
	case a.part:
		a.refused = true // nothing has gone out
	case len(part) > 0:
		a.part, a.open = true, true
		a.text = strconv.AppendInt(a.text, int64(len(part)), 16)
		a.text = append(a.text, "\r\n"...)
		a.text = append(a.text, part...)
		a.text = append(a.text, "\r\n"...)
	}
	return len(part), nil
}

// FlushError implements what http.ResponseController asks for. An answer in the lane is
// whole in a moment, and goes out then.
func (a *answer) FlushError() error {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	a.open, a.part = false, false
	return a.err
}

// send sends what has gathered.
func (a *answer) send() {
	if a.err == nil && len(a.text) > 0 {
		_, a.err = a.conn.Write(a.text)
		a.text = a.text[:0]
	}
}

// finish sends the rest, and reports whether there was an answer.
func (a *answer) finish() (answered bool, err error) {
	if a.status == 0 || a.refused || a.open {
		return false, nil
	}
	if a.length == inChunks {
		a.text = append(a.text, "0\r\n\r\n"...)
		a.written = inChunks // as long as it says
	}
	a.send()
	if a.err == nil && !bodyless(a.status) && a.written != a.length {
		a.err = http.ErrContentLength // what comes next would be taken for the rest
	}
	a.conn.lane.answered.Add(1)
	return true, a.err
}
