package cache

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/gowebpki/jcs"
)

// string appends the string that begins here.
func (c *canonical) string() {
	if c.next() != '"' {
		c.fail()
		return
	}
	from := c.at + 1
	end, plain := from, true
	for ; end < len(c.text) && c.text[end] != '"'; end++ {
		switch one := c.text[end]; {
		case one == '\\':
			plain = false
			end++
		case one < ' ':
			c.fail()
			return
		}
	}
	if end >= len(c.text) || !utf8.Valid(c.text[from:end]) {
		c.fail()
		return
	}
	c.at = end + 1
	c.out = append(c.out, '"')
	if plain {
		c.out = append(c.out, c.text[from:end]...)
	} else {
		c.unescape(c.text[from:end])
	}
	c.out = append(c.out, '"')
}

// unescape appends a string with those escapes alone that are needed.
func (c *canonical) unescape(inner []byte) {
	for len(inner) > 0 {
		at := bytes.IndexByte(inner, '\\')
		if at < 0 {
			c.out = append(c.out, inner...)
			return
		}
		c.out = append(c.out, inner[:at]...)
		inner = inner[at:]
		switch escape := inner[1]; escape { // a string does not end with a backslash
		case '/':
			c.out = append(c.out, '/')
			inner = inner[2:]
		case 'u':
			r, size := escapedRune(inner)
			if size == 0 {
				c.fail()
				return
			}
			c.out = appendRune(c.out, r)
			inner = inner[size:]
		case '"', '\\', 'b', 'f', 'n', 'r', 't':
			c.out = append(c.out, '\\', escape)
			inner = inner[2:]
		default:
			c.fail()
			return
		}
	}
}

// escapedRune reads the character that a text begins with, as one or two escapes of four
// digits, and returns how long those are; 0 where there is none.
func escapedRune(text []byte) (r rune, size int) {
	r, ok := unitOf(text)
	switch {
	case !ok:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, 6
	}
	second, ok := unitOf(text[6:])
	if r = utf16.DecodeRune(r, second); !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

// unitOf reads a unit of UTF-16, which is an escape of four digits.
func unitOf(escape []byte) (rune, bool) {
	if len(escape) < 6 || escape[0] != '\\' || escape[1] != 'u' {
		return 0, false
	}
	n := rune(0)
	for _, digit := range escape[2:6] {
		switch {
		case '0' <= digit && digit <= '9':
			digit -= '0'
		case 'a' <= digit|0x20 && digit|0x20 <= 'f':
			digit = digit | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		n = n<<4 | rune(digit)
	}
	return n, true
}

// What is escaped by one character, and by which.
const (
	escaped = "\"\\\b\f\n\r\t"
	escapes = `"\bfnrt`
)

// appendRune appends a character of a string as RFC 8785 has it.
func appendRune(b []byte, r rune) []byte {
	if at := strings.IndexRune(escaped, r); at >= 0 {
		return append(b, '\\', escapes[at])
	}
	if r < ' ' {
		return fmt.Appendf(b, `\u%04x`, r)
	}
	return utf8.AppendRune(b, r)
}

// number appends the number that begins here.
func (c *canonical) number() {
	from := c.at
	if c.next() == '-' {
		c.at++
	}
	if c.next() == '0' {
		c.at++
	} else {
		c.digits()
	}
	integer := true
	if c.next() == '.' {
		integer = false
		c.at++
		c.digits()
	}
	if next := c.next(); next == 'e' || next == 'E' {
		integer = false
		c.at++
		if next = c.next(); next == '+' || next == '-' {
			c.at++
		}
		c.digits()
	}
	if c.wrong != "" {
		return
	}
	text := string(c.text[from:c.at])
	if integer && text != "-0" {
		c.out = append(c.out, text...)
		return
	}
	double, err := strconv.ParseFloat(text, 64)
	if err == nil {
		text, err = jcs.NumberToJSON(double)
	}
	if err != nil {
		c.fail()
	}
	c.out = append(c.out, text...)
}

// digits passes over digits, of which there is at least one.
func (c *canonical) digits() {
	from := c.at
	for c.at < len(c.text) && '0' <= c.text[c.at] && c.text[c.at] <= '9' {
		c.at++
	}
	if c.at == from {
		c.fail()
	}
}

// plainName is a name without its escapes, which are those of canonical form.
func plainName(written []byte) []byte {
	if bytes.IndexByte(written, '\\') < 0 {
		return written
	}
	plain := make([]byte, 0, len(written))
	for {
		at := bytes.IndexByte(written, '\\')
		if at < 0 {
			return append(plain, written...)
		}
		plain = append(plain, written[:at]...)
		if r, ok := unitOf(written[at:]); ok {
			plain = utf8.AppendRune(plain, r)
			written = written[at+6:]
			continue
		}
		plain = append(plain, escaped[strings.IndexByte(escapes, written[at+1])])
		written = written[at+2:]
	}
}
