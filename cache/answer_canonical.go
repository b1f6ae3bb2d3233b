package cache

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf16"
)

// maxNesting bounds how deep a request is nested: what is to be put in order is copied
// at each level.
const maxNesting = 128

// canonical brings a JSON text into canonical form. What it says of a text quotes nothing
// of it.
type canonical struct {
	text  []byte
	at    int
	out   []byte
	names []place // of the objects that have begun and not ended, in that order
	spare []byte  // for members that are put in order
	wrong string  // why the text has no canonical form
}

// place is where a member stands in out: from the quote before its name, with the colon
// between.
type place struct{ begin, colon, end int }

const noIJSON = "the request is no I-JSON (RFC 7493): a name comes twice, a number is out of range, or text is not Unicode"

// fail ends the reading.
func (c *canonical) fail() {
	if c.wrong == "" {
		c.wrong = noIJSON
	}
	c.at = len(c.text)
}

// next returns the byte that comes next; 0 at the end.
func (c *canonical) next() byte {
	if c.at < len(c.text) {
		return c.text[c.at]
	}
	return 0
}

func (c *canonical) blank() {
	for c.at < len(c.text) && (c.text[c.at] == ' ' || c.text[c.at] == '\t' || c.text[c.at] == '\r' || c.text[c.at] == '\n') {
		c.at++
	}
}

// value appends the value that begins here. Where it is an object that is to stay as it is,
// its members keep their order.
func (c *canonical) value(depth int, asItIs bool) {
	if depth > maxNesting {
		c.wrong = fmt.Sprintf("the request is nested deeper than %d levels", maxNesting)
		c.fail()
		return
	}
	switch c.next() {
	case '{':
		c.object(depth, asItIs)
	case '[':
		c.list(depth)
	case '"':
		c.string()
	case 't':
		c.word("true")
	case 'f':
		c.word("false")
	case 'n':
		c.word("null")
	default:
		c.number()
	}
}

func (c *canonical) word(word string) {
	if !bytes.HasPrefix(c.text[c.at:], []byte(word)) {
		c.fail()
		return
	}
	c.out = append(c.out, word...)
	c.at += len(word)
}

func (c *canonical) list(depth int) {
	c.out = append(c.out, '[')
	c.at++
	if c.blank(); c.next() != ']' {
		c.value(depth+1, false)
		for c.more(']') {
			c.value(depth+1, false)
		}
	}
	c.at++
	c.out = append(c.out, ']')
}

// more reports whether there is another one behind what has been read, and not the end.
func (c *canonical) more(end byte) bool {
	c.blank()
	switch c.next() {
	case ',':
		c.out = append(c.out, ',')
		c.at++
		c.blank()
		return true
	case end:
	default:
		c.fail()
	}
	return false
}

// object appends the object that begins here.
func (c *canonical) object(depth int, asItIs bool) {
	above := len(c.names)
	c.out = append(c.out, '{')
	from := len(c.out)
	c.members(depth)
	if c.wrong == "" && c.sort(c.names[above:], asItIs) {
		c.spare = append(c.spare[:0], c.out[from:]...)
		c.out = c.out[:from]
		for i, one := range c.names[above:] {
			if i > 0 {
				c.out = append(c.out, ',')
			}
			c.out = append(c.out, c.spare[one.begin-from:one.end-from]...)
		}
	}
	c.names = c.names[:above]
	c.out = append(c.out, '}')
}

// members appends what is in the object that begins here, as it is, and says where.
func (c *canonical) members(depth int) {
	c.at++
	if c.blank(); c.next() != '}' {
		c.member(depth)
		for c.more('}') {
			c.member(depth)
		}
	}
	c.at++
}

func (c *canonical) member(depth int) {
	one := place{begin: len(c.out)}
	c.string()
	one.colon = len(c.out)
	c.blank()
	if c.next() != ':' {
		c.fail()
		return
	}
	c.at++
	c.blank()
	c.out = append(c.out, ':')
	c.value(depth+1, string(c.out[one.begin+1:one.colon-1]) == inOrder)
	one.end = len(c.out)
	c.names = append(c.names, one)
}

// sort puts members in order, unless they are to stay as they are, and reports whether
// they were in another. It finds names that come twice.
func (c *canonical) sort(all []place, asItIs bool) (moved bool) {
	if asItIs {
		c.sort(slices.Clone(all), false)
		return false
	}
	name := func(one place) []byte { return c.out[one.begin+1 : one.colon-1] }
	anyEscaped := false
	for i, one := range all {
		moved = moved || i > 0 && compareNames(name(all[i-1]), name(one)) > 0
		anyEscaped = anyEscaped || bytes.IndexByte(name(one), '\\') >= 0
	}
	switch {
	case anyEscaped:
		moved = true
		type spelt struct {
			plain []byte
			place
		}
		spelled := make([]spelt, len(all))
		for i, one := range all {
			spelled[i] = spelt{plainName(name(one)), one}
		}
		slices.SortFunc(spelled, func(a, b spelt) int { return compareNames(a.plain, b.plain) })
		for i := range all {
			all[i] = spelled[i].place
		}
	case moved:
		slices.SortFunc(all, func(a, b place) int { return compareNames(name(a), name(b)) })
	}
	for i := 1; i < len(all); i++ {
		if bytes.Equal(name(all[i]), name(all[i-1])) {
			c.fail()
		}
	}
	return moved
}

// compareNames orders names by their units in UTF-16. That is the order of the bytes in
// UTF-8 but for characters beyond the basic plane.
func compareNames(a, b []byte) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	if i == len(a) || i == len(b) || a[i] < 0xee || b[i] < 0xee {
		return bytes.Compare(a, b)
	}
	return slices.Compare(utf16.Encode([]rune(string(a))), utf16.Encode([]rune(string(b))))
}
