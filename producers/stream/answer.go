package stream

import (
	"io"
	"slices"
)

// answer holds the bytes that Redis answers, in one buffer for all answers of a
// reader.
type answer struct{ bytes []byte }

// answerKept is how large a buffer is kept for the next answer.
const answerKept = 1 << 20

func (a *answer) reset() {
	if cap(a.bytes) > answerKept {
		a.bytes = nil
	}
	a.bytes = a.bytes[:0]
}

// Write implements io.Writer.
func (a *answer) Write(p []byte) (int, error) {
	a.bytes = append(a.bytes, p...)
	return len(p), nil
}

// ReadFrom implements io.ReaderFrom for what go-redis copies: so many bytes of a
// connection, which then take one step and no buffer between.
func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	l, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{a}, r)
	}
	begin := len(a.bytes)
	a.bytes = slices.Grow(a.bytes, int(l.N))[:begin+int(l.N)]
	n, err := io.ReadFull(l.R, a.bytes[begin:])
	a.bytes = a.bytes[:begin+n]
	l.N -= int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil // io.Copy's caller sees that too little came
	}
	return int64(n), err
}
