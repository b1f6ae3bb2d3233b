package api

import (
	"bytes"
	"unicode/utf8"
)

// scanner goes over a JSON text by its brackets and quotes, in a fraction of the time that
// encoding/json takes. It does not judge: of what is no JSON it may find anything.
type scanner struct {
	text []byte
	at   int
}

// eachMember tells of the members of an object, the name as it is written. It reports
// false where it cannot, or where a name has escapes.
func eachMember(object []byte, tell func(name, value []byte)) bool {
	s := scanner{text: object}
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return s.ended()
	}
	for {
		name := s.value()
		if len(name) < len(`""`) || name[0] != '"' || bytes.IndexByte(name, '\\') >= 0 || !s.take(':') {
			return false
		}
		value := s.value()
		if len(value) == 0 {
			return false
		}
		tell(name[1:len(name)-1], value)
		if !s.take(',') {
			return s.take('}') && s.ended()
		}
	}
}

// eachItem tells of what is in a list. It reports false where it cannot.
func eachItem(list []byte, tell func(value []byte)) bool {
	s := scanner{text: list}
	if !s.take('[') {
		return false
	}
	if s.take(']') {
		return s.ended()
	}
	for {
		value := s.value()
		if len(value) == 0 {
			return false
		}
		tell(value)
		if !s.take(',') {
			return s.take(']') && s.ended()
		}
	}
}

func (s *scanner) blank() {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\n' || s.text[s.at] == '\r' || s.text[s.at] == '\t') {
		s.at++
	}
}

// take passes over a character, and reports whether it was there.
func (s *scanner) take(c byte) bool {
	if s.blank(); s.at == len(s.text) || s.text[s.at] != c {
		return false
	}
	s.at++
	return true
}

// ended reports whether nothing follows.
func (s *scanner) ended() bool {
	s.blank()
	return s.at == len(s.text)
}

// value returns the value that comes next; nothing where there is none.
func (s *scanner) value() []byte {
	s.blank()
	from, depth := s.at, 0
	for ; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '"':
			if !s.string() {
				return nil
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return s.text[from:s.at]
			}
			depth--
		case ',', ':', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return s.text[from:s.at]
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			s.at++
			return s.text[from:s.at]
		}
	}
	return s.text[from:]
}

// string goes from the first quote of a string to its last.
func (s *scanner) string() bool {
	for {
		s.at++
		end := bytes.IndexByte(s.text[s.at:], '"')
		if end < 0 {
			return false
		}
		inner := s.text[s.at : s.at+end]
		s.at += end
		escaping := 0
		for escaping < len(inner) && inner[len(inner)-1-escaping] == '\\' {
			escaping++
		}
		if escaping%2 == 0 {
			return true
		}
	}
}

// plainText returns a JSON string that has no escapes.
func plainText(raw []byte) (string, bool) {
	if len(raw) < len(`""`) || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return "", false
	}
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c < ' ' || c == '"' || c == '\\' {
			return "", false
		}
	}
	return string(inner), utf8.Valid(inner)
}
