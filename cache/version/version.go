package version

import (
	"cmp"
	"fmt"
	"math"
	"time"
)

// Len is the length of a version's text form in bytes.
const Len = 36

// maxEpoch is the greatest epoch that the text form can hold: 48 bits, which
// as milliseconds since 1970 reach the year 10889.
const maxEpoch = 1<<48 - 1

// Version says how much of the database a value has seen. The zero Version has
// seen nothing and is older than every other. Two versions are equal exactly
// when == says so; order them with Compare.
type Version struct {
	epoch uint64
	xmax  uint64
	open  uint32 // transactions in progress below xmax
}

// At gives the version of a value that was not read from PostgreSQL, such as an
// answer of a model: the moment, by the clock of Redis, at which its making
// began. All such versions belong to epoch 0 and are compared among themselves.
func At(t time.Time) Version {
	return Version{xmax: uint64(max(t.UnixMicro(), 0))}
}

// Compare returns -1, 0 or +1 as v has seen less than, as much as, or more than o.
func (v Version) Compare(o Version) int {
	if c := cmp.Compare(v.epoch, o.epoch); c != 0 {
		return c
	}
	if c := cmp.Compare(v.xmax, o.xmax); c != 0 {
		return c
	}
	return cmp.Compare(o.open, v.open)
}

// Epoch returns the epoch that the version belongs to.
func (v Version) Epoch() uint64 { return v.epoch }

// IsZero reports whether the version has seen nothing.
func (v Version) IsZero() bool { return v == Version{} }

// String returns the text form: Len hexadecimal digits (12 of the epoch, 16 of
// xmax, 8 of the complement of the number of transactions in progress), whose
// order as bytes is the order of Compare.
func (v Version) String() string {
	var text [Len]byte
	digits(text[:12], v.epoch)
	digits(text[12:28], v.xmax)
	digits(text[28:], uint64(math.MaxUint32-v.open))
	return string(text[:])
}

// digits writes the last hexadecimal digits of n: fmt takes ten times as long, and
// every entry that is put or read has a version.
func digits(text []byte, n uint64) {
	for i := len(text) - 1; i >= 0; i-- {
		text[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
}

// Parse reads the text form that String writes.
func Parse[Text ~string | ~[]byte](s Text) (Version, error) {
	if len(s) != Len {
		return Version{}, fmt.Errorf("version %q has %d characters, not %d", s, len(s), Len)
	}
	var fields [3]uint64 // epoch, xmax, open
	for i := range len(s) {
		c := s[i]
		digit := c - '0'
		switch {
		case c >= '0' && c <= '9':
		case c >= 'a' && c <= 'f':
			digit = c - 'a' + 10
		default:
			return Version{}, fmt.Errorf("version %q holds %q, which is no lower-case hexadecimal digit", s, c)
		}
		of := 0
		if i >= 28 {
			of = 2
		} else if i >= 12 {
			of = 1
		}
		fields[of] = fields[of]<<4 | uint64(digit)
	}
	return Version{epoch: fields[0], xmax: fields[1], open: math.MaxUint32 - uint32(fields[2])}, nil
}
