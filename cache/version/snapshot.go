package version

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxInProgress bounds the list that a snapshot may carry: more than
// max_connections plus max_prepared_transactions of any real server.
const maxInProgress = 1 << 20

// Snapshot is a pg_snapshot together with the epoch in which it was taken. It
// answers exactly whether a transaction is visible in it.
type Snapshot struct {
	Epoch uint64
	Xmin  uint64   // every id below is visible
	Xmax  uint64   // no id at or above is visible
	Xip   []uint64 // ascending; in [Xmin, Xmax) and still in progress
}

// ParseSnapshot reads PostgreSQL's text form, xmin:xmax:xip,xip,….
func ParseSnapshot(epoch uint64, text string) (Snapshot, error) {
	fail := func(why string) error {
		return fmt.Errorf("snapshot %q %s", text, why)
	}
	if epoch > maxEpoch {
		return Snapshot{}, fmt.Errorf("epoch %d is above %d", epoch, uint64(maxEpoch))
	}
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return Snapshot{}, fail("is not of the form xmin:xmax:xip,…")
	}
	s := Snapshot{Epoch: epoch}
	var err error
	if s.Xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return Snapshot{}, fail("has no number for xmin")
	}
	if s.Xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return Snapshot{}, fail("has no number for xmax")
	}
	if s.Xmin > s.Xmax {
		return Snapshot{}, fail("has its xmin above its xmax")
	}
	if parts[2] == "" {
		return s, nil
	}
	for text := range strings.SplitSeq(parts[2], ",") {
		xid, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return Snapshot{}, fail("has something other than a number in progress")
		}
		if xid < s.Xmin || xid >= s.Xmax || len(s.Xip) > 0 && xid <= s.Xip[len(s.Xip)-1] {
			return Snapshot{}, fail("has a transaction in progress that is out of order or out of range")
		}
		s.Xip = append(s.Xip, xid)
	}
	return s, nil
}

// String returns PostgreSQL's text form, without the epoch.
func (s Snapshot) String() string {
	b := strconv.AppendUint(nil, s.Xmin, 10)
	b = append(b, ':')
	b = strconv.AppendUint(b, s.Xmax, 10)
	b = append(b, ':')
	for i, xid := range s.Xip {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, xid, 10)
	}
	return string(b)
}

// Sees reports whether the transaction's effects, had it committed, are visible
// in the snapshot. The id must come from the snapshot's epoch.
func (s Snapshot) Sees(xid uint64) bool {
	if xid < s.Xmin {
		return true
	}
	if xid >= s.Xmax {
		return false
	}
	_, open := slices.BinarySearch(s.Xip, xid)
	return !open
}

// Version returns the snapshot's place in the order of what was read.
func (s Snapshot) Version() Version {
	return Version{epoch: s.Epoch, xmax: s.Xmax, open: uint32(len(s.Xip))}
}

// AppendBinary appends a compact form: a few bytes and about one more for each
// transaction in progress. The epoch and xmax are left out, since the version
// that is stored beside the snapshot has them. It never fails.
func (s Snapshot) AppendBinary(b []byte) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(len(s.Xip)))
	b = binary.AppendUvarint(b, s.Xmax-s.Xmin)
	last := s.Xmin
	for _, xid := range s.Xip {
		b = binary.AppendUvarint(b, xid-last)
		last = xid
	}
	return b, nil
}

var errCut = errors.New("snapshot is cut short or does not match its version")

// DecodeSnapshot reads what AppendBinary wrote, given the version stored beside
// it, and returns the bytes that follow.
func DecodeSnapshot(v Version, b []byte) (Snapshot, []byte, error) {
	next := func() (uint64, bool) {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return 0, false
		}
		b = b[size:]
		return n, true
	}
	count, ok := next()
	if !ok || count > maxInProgress || count != uint64(v.open) || count > uint64(len(b)) {
		return Snapshot{}, nil, errCut
	}
	span, ok := next()
	if !ok || span > v.xmax {
		return Snapshot{}, nil, errCut
	}
	s := Snapshot{Epoch: v.epoch, Xmin: v.xmax - span, Xmax: v.xmax}
	if count > 0 {
		s.Xip = make([]uint64, count)
	}
	last := s.Xmin
	for i := range s.Xip {
		delta, ok := next()
		if !ok || delta >= s.Xmax-last || i > 0 && delta == 0 {
			return Snapshot{}, nil, errCut
		}
		last += delta
		s.Xip[i] = last
	}
	return s, b, nil
}
