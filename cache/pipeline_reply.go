package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
)

// bulks collects Redis's bytes of one reply, so that the values in it need no
// memory of their own before it is known which of them are wanted.
type bulks struct{ bytes []byte }

// bulksKept is how large a buffer is kept for the next reply.
const bulksKept = 1 << 20

func (b *bulks) reset() {
	if cap(b.bytes) > bulksKept {
		b.bytes = nil
	}
	b.bytes = b.bytes[:0]
}

// Write implements io.Writer.
func (b *bulks) Write(p []byte) (int, error) {
	b.bytes = append(b.bytes, p...)
	return len(p), nil
}

// ReadFrom implements io.ReaderFrom for what go-redis copies: so many bytes of a
// connection, which then take one step and no buffer between.
func (b *bulks) ReadFrom(r io.Reader) (int64, error) {
	l, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{b}, r)
	}
	begin := len(b.bytes)
	b.bytes = slices.Grow(b.bytes, int(l.N))[:begin+int(l.N)]
	n, err := io.ReadFull(l.R, b.bytes[begin:])
	b.bytes = b.bytes[:begin+n]
	l.N -= int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // io.Copy's caller sees that too little came
	}
	return int64(n), err
}

// errOddReply says that Redis answered something other than what was asked for.
var errOddReply = errors.New("odd reply")

// errorReply is an error of Redis's own.
type errorReply string //nolint:errname // RESP's word

func (e errorReply) Error() string { return string(e) }

// RedisError marks it as one, as go-redis's own are.
func (errorReply) RedisError() {}

// values reads an array of so many strings; nil stands for one that is not there.
// They share memory with the buffer.
func (b *bulks) values(values [][]byte) error {
	rest := b.bytes
	line, rest, ok := cutLine(rest)
	if !ok || len(line) == 0 {
		return errOddReply
	}
	if line[0] == '-' {
		return errorReply(line[1:])
	}
	if n, err := strconv.Atoi(string(line[1:])); line[0] != '*' || err != nil || n != len(values) {
		return fmt.Errorf("%w: %q in place of %d values", errOddReply, line, len(values))
	}
	for i := range values {
		var err error
		if values[i], rest, err = cutValue(rest); err != nil {
			return err
		}
	}
	return nil
}

// value reads one string; nil where there is none.
func (b *bulks) value() []byte {
	value, _, err := cutValue(b.bytes)
	if err != nil {
		return nil
	}
	return value
}

// cutValue reads a string, or nil for one that is not there.
func cutValue(b []byte) (value, rest []byte, err error) {
	line, rest, ok := cutLine(b)
	if !ok || len(line) == 0 {
		return nil, nil, errOddReply
	}
	if line[0] == '_' || string(line) == "$-1" { // nil in RESP3, and in RESP2
		return nil, rest, nil
	}
	n, err := strconv.Atoi(string(line[1:]))
	if line[0] != '$' || err != nil || n < 0 || n+2 > len(rest) {
		return nil, nil, fmt.Errorf("%w: %q in place of a value", errOddReply, line)
	}
	return rest[:n:n], rest[n+2:], nil
}

func cutLine(b []byte) (line, rest []byte, ok bool) { return bytes.Cut(b, []byte("\r\n")) }
