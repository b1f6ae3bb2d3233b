package cache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/gowebpki/jcs"
)

// maxNesting bounds how deep a request is nested: what is to be put in order is copied
// at each level.
const maxNesting = 128

// members are those of a JSON object in canonical form (RFC 8785), in its order, with two
// exceptions, since that form is also what a model is sent:
//
//   - RFC 8785 reads numbers as doubles, to which some seeds of 64 bits are equal that are
//     not. Integers keep their digits here.
//   - A model fills in the properties of a schema in the order in which they are written:
//     the reasoning before the answer, or the answer before its reasoning. Members of an
//     object that is called properties stay as they are.
type members []named

// inOrder is the name of objects whose members stay in their order.
const inOrder = "properties"

// named is a name and its value, both as they are written, the name without its quotes.
type named struct{ name, value []byte }

// readMembers reads a JSON object. It refuses what is not one in I-JSON (RFC 7493).
func readMembers(text []byte) (members, error) {
	c := canonical{text: text}
	c.blank()
	if !json.Valid(text) || text[c.at] != '{' {
		return nil, fmt.Errorf("%w: the request is not a JSON object", ErrRequest)
	}
	c.out = make([]byte, 0, len(text))
	all := c.members(0, false)
	if c.wrong != "" {
		return nil, fmt.Errorf("%w: %s", ErrRequest, c.wrong)
	}
	return all, nil
}

// canonical brings a valid JSON text into canonical form. What it says of a text quotes
// nothing of it.
type canonical struct {
	text  []byte
	at    int
	out   []byte
	wrong string // why it has none
}

const noIJSON = "the request is no I-JSON (RFC 7493): a name comes twice, a number is out of range, or text is not Unicode"

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
		c.at = len(c.text)
		return
	}
	switch c.text[c.at] {
	case '{':
		from := len(c.out)
		c.out = append(c.out[:from], c.members(depth, asItIs).object()...)
	case '[':
		c.list(depth)
	case '"':
		c.out = append(c.out, '"')
		c.string()
		c.out = append(c.out, '"')
	case 't', 'n':
		c.out = append(c.out, c.text[c.at:c.at+4]...)
		c.at += 4
	case 'f':
		c.out = append(c.out, "false"...)
		c.at += 5
	default:
		c.number()
	}
}

func (c *canonical) list(depth int) {
	c.at++
	c.out = append(c.out, '[')
	for first := true; ; first = false {
		c.blank()
		if c.at >= len(c.text) {
			return // it is nested too deep
		}
		switch c.text[c.at] {
		case ']':
			c.at++
			c.out = append(c.out, ']')
			return
		case ',':
			c.at++
			c.blank()
		}
		if !first {
			c.out = append(c.out, ',')
		}
		c.value(depth+1, false)
	}
}

// members reads the object that begins here. They stand one after the other behind what
// has been appended, where they stay until that is appended to.
func (c *canonical) members(depth int, asItIs bool) members {
	c.at++
	from := len(c.out)
	var ends []int // of each name and each value
	for {
		c.blank()
		if c.at >= len(c.text) {
			return nil
		}
		switch c.text[c.at] {
		case '}':
			c.at++
			all := make(members, len(ends)/2)
			begin := from
			for i := range all {
				all[i] = named{c.out[begin:ends[2*i]:ends[2*i]], c.out[ends[2*i]:ends[2*i+1]:ends[2*i+1]]}
				begin = ends[2*i+1]
			}
			c.sort(all, asItIs)
			c.out = c.out[:from]
			return all
		case ',':
			c.at++
			c.blank()
		}
		named := len(c.out)
		c.string()
		ends = append(ends, len(c.out))
		inside := string(c.out[named:]) == inOrder
		c.blank()
		c.at++ // the colon
		c.blank()
		c.value(depth+1, inside)
		ends = append(ends, len(c.out))
	}
}

// sort puts members in order, unless they are to stay as they are, and finds names that
// come twice.
func (c *canonical) sort(all members, asItIs bool) {
	if asItIs {
		c.sort(slices.Clone(all), false)
		return
	}
	slices.SortFunc(all, func(a, b named) int { return compareNames(a.plainName(), b.plainName()) })
	for i := 1; i < len(all); i++ {
		if bytes.Equal(all[i].name, all[i-1].name) {
			c.wrong = noIJSON
		}
	}
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

// string appends what is between the quotes of the string that begins here.
func (c *canonical) string() {
	c.at++
	from, plain := c.at, true
	end := from
	for ; c.text[end] != '"'; end++ {
		if c.text[end] == '\\' {
			plain = false
			end++
		}
	}
	c.at = end + 1
	inner := c.text[from:end]
	switch {
	case !utf8.Valid(inner):
		c.wrong = noIJSON
	case plain:
		c.out = append(c.out, inner...)
	default:
		c.unescape(inner)
	}
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
		switch escape := inner[at+1]; escape {
		case '/':
			c.out = append(c.out, '/')
			inner = inner[at+2:]
		case 'u':
			r := unitOf(inner[at:])
			inner = inner[at+6:]
			if utf16.IsSurrogate(r) {
				if len(inner) < 6 || inner[0] != '\\' || inner[1] != 'u' {
					c.wrong = noIJSON
					return
				}
				if r = utf16.DecodeRune(r, unitOf(inner)); r == utf8.RuneError {
					c.wrong = noIJSON
					return
				}
				inner = inner[6:]
			}
			c.out = appendRune(c.out, r)
		default:
			c.out = append(c.out, '\\', escape)
			inner = inner[at+2:]
		}
	}
}

// unitOf reads \uXXXX.
func unitOf(escape []byte) rune {
	n, _ := strconv.ParseUint(string(escape[2:6]), 16, 16) // it is valid
	return rune(n)
}

// appendRune appends a character of a string as RFC 8785 has it.
func appendRune(b []byte, r rune) []byte {
	if at := strings.IndexRune("\"\\\b\f\n\r\t", r); at >= 0 {
		return append(b, '\\', `"\bfnrt`[at])
	}
	if r < ' ' {
		return fmt.Appendf(b, `\u%04x`, r)
	}
	return utf8.AppendRune(b, r)
}

// number appends the number that begins here.
func (c *canonical) number() {
	from := c.at
	integer := true
	for ; c.at < len(c.text) && strings.IndexByte("+-.0123456789eE", c.text[c.at]) >= 0; c.at++ {
		integer = integer && strings.IndexByte(".eE", c.text[c.at]) < 0
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
		c.wrong = noIJSON
	}
	c.out = append(c.out, text...)
}

// get returns a member's value; nil where there is none. The name is one that canonical
// form writes as it is.
func (m members) get(name string) []byte {
	for _, one := range m {
		if string(one.name) == name {
			return one.value
		}
	}
	return nil
}

// without returns the members but those of some names.
func (m members) without(names ...string) members {
	return slices.DeleteFunc(m, func(one named) bool { return slices.Contains(names, string(one.name)) })
}

// with returns the members and one of that name, of ASCII, in place of what there was.
// Its value is in canonical form.
func (m members) with(name string, value []byte) members {
	m = m.without(name)
	at, _ := slices.BinarySearchFunc(m, []byte(name), func(one named, name []byte) int { return compareNames(one.plainName(), name) })
	return slices.Insert(m, at, named{[]byte(name), value})
}

// plainName is the name without escapes.
func (n named) plainName() []byte {
	if bytes.IndexByte(n.name, '\\') < 0 {
		return n.name
	}
	var name string
	_ = json.Unmarshal(slices.Concat([]byte{'"'}, n.name, []byte{'"'}), &name) // it has been read before
	return []byte(name)
}

// object writes the members.
func (m members) object() []byte {
	size := len("{}")
	for _, one := range m {
		size += len(one.name) + len(one.value) + len(`"":,`)
	}
	text := append(make([]byte, 0, size), '{')
	for i, one := range m {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(append(append(text, '"'), one.name...), `":`...)
		text = append(text, one.value...)
	}
	return append(text, '}')
}
