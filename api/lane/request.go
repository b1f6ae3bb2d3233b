package lane

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const endOfHead = "\r\n\r\n"

// cutHead returns the head of what may be a request in the lane, up to the empty line,
// and what is behind it; no head if that is not worth to be looked at.
func cutHead(raw []byte) (head, body []byte) {
	switch {
	case bytes.HasPrefix(raw, []byte("GET /")):
		if bytes.HasSuffix(raw, []byte(endOfHead)) {
			return raw, nil
		}
	case bytes.HasPrefix(raw, []byte("POST /")):
		if at := bytes.Index(raw, []byte(endOfHead)); at >= 0 {
			at += len(endOfHead)
			return raw[:at], raw[at:]
		}
	}
	return nil, nil
}

// parse makes a request of what cutHead has found, provided that this is exactly one of the form that
// the lane understands:
//
//	POST /path HTTP/1.1
//	Host: example.com
//	Authorization: Bearer abc
//	Content-Length: 2
//
//	{}
//
// The method is GET or POST. The path has unreserved characters, colons, at signs and
// single slashes, and no query follows. Each field is one that canonical knows and stands
// once, with a value of visible characters and spaces between them. Host is among them;
// Connection, where it is, says keep-alive. A POST says how long its body is, in digits,
// and all of that and nothing more is there. A GET has no body, since none of its fields
// could announce one.
//
// The body is the text's own: it is gone when that is.
func (t *turn) parse(head, body []byte, blank *http.Request) bool {
	method, seen := http.MethodGet, postFields // as if these had been there, so that they must not be
	if head[0] == 'P' {
		method, seen = http.MethodPost, 0
	}
	text := string(head) // the one copy: all but the body is a part of it
	path, rest, _ := strings.Cut(text[len(method)+len(" "):], " ")
	rest, ok := strings.CutPrefix(rest, "HTTP/1.1\r\n")
	if !ok || !plainPath(path) {
		return false
	}
	r := t.request
	*r = *blank
	r.Method, r.Header, r.URL, r.RequestURI = method, t.header, &t.url, path
	t.url = url.URL{Path: path}
	for n := 0; rest != "\r\n"; n++ {
		var line string
		line, rest, ok = strings.Cut(rest, "\r\n")
		name, value, colon := strings.Cut(line, ":")
		which, bit := canonical(name)
		value = strings.TrimPrefix(value, " ")
		if !ok || !colon || bit == 0 || seen&bit != 0 || !visible(value) {
			return false
		}
		seen |= bit
		switch bit {
		case host:
			if !plainHost(value) {
				return false
			}
			r.Host = value
			continue
		case connection:
			if !strings.EqualFold(value, "keep-alive") {
				return false
			}
		case contentLength:
			if value != strconv.Itoa(len(body)) {
				return false
			}
		}
		t.values[n] = value
		t.header[which] = t.values[n : n+1 : n+1]
	}
	if len(body) > 0 {
		t.body.left = body
		r.Body, r.ContentLength = &t.body, int64(len(body))
	}
	return seen&host != 0 && seen&contentLength != 0
}

// visible reports whether a value is one that needs no thought.
func visible(value string) bool {
	if value == "" || value[0] == ' ' || value[len(value)-1] == ' ' {
		return false
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// plainPath reports whether a path is its own escaped form.
func plainPath(path string) bool {
	for i := range len(path) {
		if !plain(path[i]) && (path[i] != '/' || i > 0 && path[i-1] == '/') {
			return false
		}
	}
	return true
}

// plainHost reports whether a host is a name or an address, with a port or without.
func plainHost(host string) bool {
	for i := range len(host) {
		if c := host[i]; c == '@' || c == '~' || !plain(c) && c != '[' && c != ']' {
			return false
		}
	}
	return true
}

// plain reports whether a character stands for itself in paths.
func plain(c byte) bool {
	switch c {
	case '-', '.', '_', '~', ':', '@':
		return true
	default:
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	}
}

// body is what a handler reads of a request's.
type body struct{ left []byte }

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if len(b.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// Body returns what is left to be read of a request's body, if that has come by a lane;
// else nothing. It is not to be changed, nor to be held on to.
func Body(r *http.Request) []byte {
	if b, ours := r.Body.(*body); ours {
		return b.left
	}
	return nil
}

// Close implements io.Closer.
func (*body) Close() error { return nil }
