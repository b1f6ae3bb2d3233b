package cache

import (
	"encoding/json"
	"fmt"
	"slices"
)

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
	c := canonical{text: text, out: make([]byte, 0, len(text)+len("{}"))}
	var few [16]place // as many as most requests have at a time
	c.names = few[:0]
	c.blank()
	if c.next() != '{' {
		return nil, errNoObject
	}
	c.members(0)
	c.blank()
	if c.at < len(text) {
		c.fail()
	}
	if c.wrong == "" {
		c.sort(c.names, false)
	}
	switch {
	case c.wrong == "":
	case !json.Valid(text): // what is no JSON has no other flaw
		return nil, errNoObject
	default:
		return nil, fmt.Errorf("%w: %s", ErrRequest, c.wrong)
	}
	all := make(members, len(c.names))
	for i, one := range c.names {
		all[i] = named{c.out[one.begin+1 : one.colon-1 : one.colon-1], c.out[one.colon+1 : one.end : one.end]}
	}
	return all, nil
}

var errNoObject = fmt.Errorf("%w: the request is not a JSON object", ErrRequest)

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
	at, _ := slices.BinarySearchFunc(m, []byte(name), func(one named, name []byte) int { return compareNames(plainName(one.name), name) })
	return slices.Insert(m, at, named{[]byte(name), value})
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
