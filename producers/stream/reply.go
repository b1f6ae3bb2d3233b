package stream

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A reader of what XREADGROUP and XCLAIM answer, as it comes from the connection. go-redis
// makes a map of boxed values of each entry, which costs more than all else that is
// done with it; here an entry is one string, of which its fields are parts.
//
// RESP: https://redis.io/docs/latest/develop/reference/protocol-spec/

// errReply says that an answer is not as those are that bring entries.
var errReply = errors.New("odd reply of Redis")

// refusal is an error that Redis answered. It is a redis.Error.
type refusal string

func (r refusal) Error() string { return string(r) }

// RedisError implements redis.Error.
func (refusal) RedisError() {}

// reply is what is left to be read of an answer.
type reply struct {
	raw []byte
	at  int
}

// readReply calls found with each entry of an answer: the name of its stream, its
// id and its fields.
func readReply(raw []byte, found func(stream, id string, f fields)) error {
	if len(raw) > 0 && raw[0] == '-' {
		return refusal(bytes.TrimRight(raw[1:], "\r\n"))
	}
	r := &reply{raw: raw}
	streams, err := r.length("*%")
	if err != nil {
		return err
	}
	for range streams {
		if raw[0] == '*' { // RESP2 has pairs where RESP3 has a map
			if _, err := r.length("*"); err != nil {
				return err
			}
		}
		name, err := r.text()
		if err != nil {
			return err
		}
		if err := r.entries(string(name), found); err != nil {
			return err
		}
	}
	return nil
}

// readEntries calls found with each entry of an answer to XCLAIM.
func readEntries(raw []byte, found func(id string, f fields)) error {
	if len(raw) > 0 && raw[0] == '-' {
		return refusal(bytes.TrimRight(raw[1:], "\r\n"))
	}
	r := &reply{raw: raw}
	return r.entries("", func(_, id string, f fields) { found(id, f) })
}

func (r *reply) entries(stream string, found func(stream, id string, f fields)) error {
	n, err := r.length("*")
	if err != nil {
		return err
	}
	var parts [][2]int // where the texts of an entry are
	for range n {
		begin := r.at
		if n, err := r.length("*"); err != nil {
			return err
		} else if n == 0 {
			continue // an entry that is gone
		}
		parts = parts[:0]
		if parts, err = r.part(parts); err != nil {
			return err
		}
		count, err := r.length("*")
		if err != nil {
			return err
		}
		for range count {
			if parts, err = r.part(parts); err != nil {
				return err
			}
		}
		entry := string(r.raw[begin:r.at])
		f := make(fields, len(parts)-1)
		for i, p := range parts[1:] {
			f[i] = entry[p[0]-begin : p[1]-begin]
		}
		found(stream, entry[parts[0][0]-begin:parts[0][1]-begin], f)
	}
	return nil
}

// part notes where the next text is.
func (r *reply) part(parts [][2]int) ([][2]int, error) {
	text, err := r.text()
	if err != nil {
		return nil, err
	}
	end := r.at - len("\r\n")
	return append(parts, [2]int{end - len(text), end}), nil
}

// length reads the head of an array or map, 0 for one that is null.
func (r *reply) length(kinds string) (int, error) {
	kind, n, err := r.head()
	switch {
	case err != nil:
		return 0, err
	case kind == '_' || n < 0:
		return 0, nil
	case strings.IndexByte(kinds, kind) < 0:
		return 0, fmt.Errorf("%w: %q where one of %q is due", errReply, kind, kinds)
	}
	return n, nil
}

// text reads a bulk string.
func (r *reply) text() ([]byte, error) {
	kind, n, err := r.head()
	if err != nil {
		return nil, err
	}
	if kind != '$' || n < 0 || n > len(r.raw)-r.at-len("\r\n") {
		return nil, fmt.Errorf("%w: %q and %d where a text is due", errReply, kind, n)
	}
	text := r.raw[r.at : r.at+n]
	r.at += n + len("\r\n")
	return text, nil
}

// head reads a line such as $12.
func (r *reply) head() (kind byte, n int, err error) {
	line := r.raw[r.at:]
	end := bytes.IndexByte(line, '\n')
	if end < 2 || line[end-1] != '\r' {
		return 0, 0, fmt.Errorf("%w: it ends early", errReply)
	}
	r.at += end + 1
	if line = line[:end-1]; len(line) == 1 {
		return line[0], 0, nil
	}
	if n, err = strconv.Atoi(string(line[1:])); err != nil {
		return 0, 0, fmt.Errorf("%w: %q is no length", errReply, line)
	}
	return line[0], n, nil
}
