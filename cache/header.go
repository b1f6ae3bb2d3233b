package cache

import (
	"encoding/binary"
	"encoding/hex"
	"time"

	"mythiccache/cache/version"
)

// state says what a key holds.
type state byte

// The states of a key. They are letters, so that redis-cli shows them.
const (
	stateValue    state = 'v'
	stateNegative state = 'n' // a value too: "there is no such row"
	stateFence    state = 'f' // no value; the version that one must have
)

// schema is the first byte of every entry. It changes with the layout; to a
// program of another schema an entry is a miss, and it may write over it.
const schema = '1'

// The layout of the header, in bytes. entry.lua knows the same offsets.
// Integers are big-endian, times milliseconds since 1970 by the clock of Redis.
const (
	offState    = 1  // state
	offVersion  = 2  // text form of the version of the value, or of the fence
	offToken    = 38 // who holds the lease; zeros: nobody; pauseToken: nobody, nor may anybody yet
	offDeadline = 46 // until when
	offSaved    = 52 // of a fence: when the change came, or zero
	offFresh    = 58 // fresh until
	offCost     = 64 // microseconds that loading took
	offRun      = 68 // first 4 bytes of the run_id under which the value was put
	headerLen   = 72

	tokenLen = offDeadline - offToken
	runLen   = headerLen - offRun
)

// header is the part of an entry that the scripts read and write.
type header struct {
	state      state
	version    version.Version
	token      string // empty: no lease
	deadline   time.Time
	saved      time.Time
	freshUntil time.Time
	loadTook   time.Duration
	run        string // hexadecimal, the first 8 digits of the run_id
}

func (h header) append(b []byte) []byte {
	b = append(b, schema, byte(h.state))
	b = append(b, h.version.String()...)
	b = append(b, h.token...)
	b = append(b, make([]byte, tokenLen-len(h.token))...)
	b = appendMillis(b, h.deadline)
	b = appendMillis(b, h.saved)
	b = appendMillis(b, h.freshUntil)
	b = binary.BigEndian.AppendUint32(b, clampMicros(h.loadTook))
	run, err := hex.DecodeString(h.run)
	if err != nil || len(run) != runLen {
		run = make([]byte, runLen)
	}
	return append(b, run...)
}

// decodeHeader reads a header and returns the bytes that follow it.
func decodeHeader(b []byte) (header, []byte, error) {
	if len(b) < headerLen || b[0] != schema {
		return header{}, nil, errCorrupt
	}
	h := header{
		state:      state(b[offState]),
		deadline:   millis(b[offDeadline:]),
		saved:      millis(b[offSaved:]),
		freshUntil: millis(b[offFresh:]),
		loadTook:   time.Duration(binary.BigEndian.Uint32(b[offCost:])) * time.Microsecond,
		run:        hex.EncodeToString(b[offRun:headerLen]),
	}
	switch h.state {
	case stateValue, stateNegative, stateFence:
	default:
		return header{}, nil, errCorrupt
	}
	var err error
	if h.version, err = version.Parse(b[offVersion:offToken]); err != nil {
		return header{}, nil, errCorrupt
	}
	if token := string(b[offToken:offDeadline]); token != noToken {
		h.token = token
	}
	return h, b[headerLen:], nil
}

// noToken stands in the header of a key that nobody fills.
const noToken = "\x00\x00\x00\x00\x00\x00\x00\x00"

// pauseToken stands in the header of a key whose lease nobody is given before the
// deadline beside it.
const pauseToken = "\x00\x00\x00\x00\x00\x00\x00\x01"

// pause writes a pause into the header of an entry whose lease has ended.
func pause(entry []byte, until time.Time) {
	appendMillis(append(entry[:offToken], pauseToken...), until)
}

// runOf returns what a header keeps of a run_id.
func runOf(runID string) string {
	if len(runID) < 2*runLen {
		return ""
	}
	return runID[:2*runLen]
}

// millisLen is how many bytes a time takes.
const millisLen = 6

// appendMillis appends six bytes, which reach the year 10889. The zero time is 0.
func appendMillis(b []byte, t time.Time) []byte {
	var ms uint64
	if !t.IsZero() {
		ms = uint64(max(t.UnixMilli(), 0))
	}
	return append(b, byte(ms>>40), byte(ms>>32), byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms))
}

func millis(b []byte) time.Time {
	ms := int64(b[0])<<40 | int64(b[1])<<32 | int64(b[2])<<24 | int64(b[3])<<16 | int64(b[4])<<8 | int64(b[5])
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
