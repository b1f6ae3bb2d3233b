package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"mythiccache/cache/version"
)

// Entry is a value of a view, or the knowledge that there is none.
type Entry struct {
	View, Key  string
	Negative   bool             // there is no such row; Body is empty
	Owner      string           // whom the value belongs to, where Owned
	Owned      bool             //
	Version    version.Version  // of the snapshot that the value was read in
	Snapshot   version.Snapshot // zero for a value that was not read from PostgreSQL
	ETag       string           // strong and quoted (RFC 9110, 8.8.3); empty where Negative
	Body       []byte           // final bytes; must not be changed
	Saved      time.Time        // when it was stored, by the clock of Redis, in milliseconds
	FreshUntil time.Time        // the same clock
	LoadTook   time.Duration    // what making it cost

	kept []byte // what is stored in place of Body, where that is sealed
}

// stored returns the body as it stands in Redis. The ETag is of this.
func (e Entry) stored() []byte {
	if e.kept != nil {
		return e.kept
	}
	return e.Body
}

// What follows the header in the bytes of a value. All integers are varints.
//
//	flags (1 byte) · [snapshot] · [length of owner, owner] · etag (12 bytes) · body
const (
	flagSnapshot = 1 << iota
	flagOwned
)

// etagLen bytes of the body's SHA-256 make its ETag: 96 bits, 16 characters.
const etagLen = 12

// errCorrupt says that a key holds something that this program did not write,
// or that another release wrote. To readers it is as if nothing were there.
var errCorrupt = errors.New("not an entry of this release")

// appendEntry appends the bytes of an entry, whose lease has ended.
func appendEntry(b []byte, e Entry, run string) ([]byte, error) {
	h := header{
		state: stateValue, version: e.Version, run: run,
		saved: e.Saved, freshUntil: e.FreshUntil, loadTook: e.LoadTook,
	}
	if e.Negative {
		h.state = stateNegative
	}
	b = h.append(b)
	var flags byte
	hasSnapshot := e.Snapshot.Xmax != 0
	if hasSnapshot {
		if e.Snapshot.Version() != e.Version {
			return nil, fmt.Errorf("version %s is not that of snapshot %s of epoch %d", e.Version, e.Snapshot, e.Snapshot.Epoch)
		}
		flags |= flagSnapshot
	}
	if e.Owned {
		flags |= flagOwned
	}
	b = append(b, flags)
	if hasSnapshot {
		b, _ = e.Snapshot.AppendBinary(b) // never fails, by its promise
	}
	if e.Owned {
		b = binary.AppendUvarint(b, uint64(len(e.Owner)))
		b = append(b, e.Owner...)
	}
	body := e.stored()
	sum := sha256.Sum256(body)
	b = append(b, sum[:etagLen]...)
	return append(b, body...), nil
}

// decodeEntry reads the bytes of a key. Of a fence it returns the header alone.
// Body shares memory with b.
func decodeEntry(view, key string, b []byte) (Entry, header, error) {
	h, rest, err := decodeHeader(b)
	if err != nil {
		return Entry{}, header{}, err
	}
	e := Entry{
		View: view, Key: key, Negative: h.state == stateNegative, Version: h.version,
		Saved: h.saved, FreshUntil: h.freshUntil, LoadTook: h.loadTook,
	}
	if h.state == stateFence {
		return e, h, nil
	}
	if len(rest) == 0 {
		return Entry{}, header{}, errCorrupt
	}
	flags := rest[0]
	rest = rest[1:]
	if flags&^(flagSnapshot|flagOwned) != 0 {
		return Entry{}, header{}, errCorrupt
	}
	if flags&flagSnapshot != 0 {
		if e.Snapshot, rest, err = version.DecodeSnapshot(h.version, rest); err != nil {
			return Entry{}, header{}, errCorrupt
		}
	}
	if flags&flagOwned != 0 {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > uint64(len(rest)-size) {
			return Entry{}, header{}, errCorrupt
		}
		e.Owned, e.Owner = true, string(rest[size:size+int(n)])
		rest = rest[size+int(n):]
	}
	if len(rest) < etagLen {
		return Entry{}, header{}, errCorrupt
	}
	if !e.Negative {
		e.ETag = etag(rest[:etagLen])
		e.Body = rest[etagLen:]
	}
	return e, h, nil
}

// etag renders the stored bytes of an ETag.
func etag(sum []byte) string {
	b := make([]byte, 0, 2+base64.RawURLEncoding.EncodedLen(etagLen))
	b = append(b, '"')
	b = base64.RawURLEncoding.AppendEncode(b, sum)
	return string(append(b, '"'))
}

// clampMicros keeps a duration within the header's four bytes.
func clampMicros(d time.Duration) uint32 {
	return uint32(min(max(d.Microseconds(), 0), math.MaxUint32))
}
