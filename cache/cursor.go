package cache

import (
	"encoding/binary"
	"time"
)

// cursor reads the fields of an announcement one after the other. After the
// first mistake every further field is zero.
type cursor struct {
	rest string
	err  error
}

func (c *cursor) uvarint() uint64 {
	if c.err != nil {
		return 0
	}
	n, size := binary.Uvarint([]byte(c.rest[:min(len(c.rest), binary.MaxVarintLen64)]))
	if size <= 0 {
		c.err = errCorrupt
		return 0
	}
	c.rest = c.rest[size:]
	return n
}

func (c *cursor) text() string {
	n := c.uvarint()
	if n > uint64(len(c.rest)) {
		c.err = errCorrupt
	}
	if c.err != nil {
		return ""
	}
	text := c.rest[:n]
	c.rest = c.rest[n:]
	return text
}

func (c *cursor) micros() time.Time {
	us := c.uvarint()
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(us))
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendMicros appends a time; the zero time is 0.
func appendMicros(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(max(t.UnixMicro(), 0)))
}
