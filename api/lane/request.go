package lane

import (
	"net/http"
	"net/url"
	"strings"
)

// plausible reports whether it is worth looking at a text.
func plausible(text []byte) bool {
	const begin, end = "GET /", "\r\n\r\n"
	n := len(text)
	return n > len(begin)+len(end) && string(text[:len(begin)]) == begin && string(text[n-len(end):]) == end
}

// parse makes a request of a text, provided that it is exactly one of the form that
// the lane understands:
//
//	GET /path HTTP/1.1
//	Host: example.com
//	Authorization: Bearer abc
//
// The path has unreserved characters, colons, at signs and single slashes, and no query
// follows. Each field is one that canonical knows and stands once, with a value of
// visible characters and spaces between them. Host is among them; Connection, where it
// is, says keep-alive. There is no body, since none of the fields could announce one.
func (t *turn) parse(raw []byte, blank *http.Request) bool {
	text := string(raw) // the one copy: everything in the request is a part of it
	path, rest, _ := strings.Cut(text[len("GET "):], " ")
	rest, ok := strings.CutPrefix(rest, "HTTP/1.1\r\n")
	if !ok || !plainPath(path) {
		return false
	}
	r := t.request
	*r = *blank
	r.Header, r.URL, r.RequestURI = t.header, &t.url, path
	t.url = url.URL{Path: path}
	var seen uint32
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
		}
		t.values[n] = value
		t.header[which] = t.values[n : n+1 : n+1]
	}
	return seen&host != 0
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
