package stream

import (
	"encoding/binary"
	"math"

	"github.com/ThreeDotsLabs/watermill/message"
)

// readMetadata reads a map of texts to texts from MessagePack, as
// watermill-redisstream writes a message's metadata: its own decoder takes more time
// than all the rest of reading the entry. It is false for anything else, whose
// judge is that decoder.
//
// MessagePack: https://github.com/msgpack/msgpack/blob/master/spec.md
func readMetadata(packed string) (message.Metadata, bool) {
	n, rest, ok := packedLength(packed, 0x80, 0x0f, 0, 0xde, 0xdf)
	if !ok || n > len(rest)/2 { // what is shorter than its map's length is a lie
		return nil, false
	}
	metadata := make(message.Metadata, n)
	for range n {
		var name, value string
		if name, rest, ok = packedText(rest); !ok {
			return nil, false
		}
		if value, rest, ok = packedText(rest); !ok {
			return nil, false
		}
		metadata[name] = value
	}
	return metadata, rest == ""
}

func packedText(packed string) (text, rest string, ok bool) {
	n, rest, ok := packedLength(packed, 0xa0, 0x1f, 0xd9, 0xda, 0xdb)
	if !ok || n > len(rest) {
		return "", "", false
	}
	return rest[:n], rest[n:], true
}

// packedLength reads the first byte of a map or text and the length that follows
// it: the byte holds the length where it is fixed under mask, and else says whether
// it has one, two or four bytes.
func packedLength(packed string, fixed, mask, one, two, four byte) (n int, rest string, ok bool) {
	if packed == "" {
		return 0, "", false
	}
	kind, rest := packed[0], packed[1:]
	if kind&^mask == fixed {
		return int(kind & mask), rest, true
	}
	size := 0
	switch {
	case kind == one && one != 0:
		size = 1
	case kind == two:
		size = 2
	case kind == four:
		size = 4
	}
	if size == 0 || len(rest) < size {
		return 0, "", false
	}
	var digits [4]byte
	copy(digits[4-size:], rest[:size])
	return int(binary.BigEndian.Uint32(digits[:])), rest[size:], true
}

// packMetadata writes what readMetadata reads.
func packMetadata(metadata message.Metadata) []byte {
	size := 5
	for name, value := range metadata {
		size += 10 + len(name) + len(value)
	}
	packed := appendLength(make([]byte, 0, size), len(metadata), 0x80, 0x0f, 0, 0xde, 0xdf)
	for name, value := range metadata {
		for _, text := range [...]string{name, value} {
			packed = append(appendLength(packed, len(text), 0xa0, 0x1f, 0xd9, 0xda, 0xdb), text...)
		}
	}
	return packed
}

// appendLength writes what packedLength reads.
func appendLength(packed []byte, n int, fixed, mask, one, two, four byte) []byte {
	switch {
	case n <= int(mask):
		return append(packed, fixed|byte(n))
	case n <= math.MaxUint8 && one != 0:
		return append(packed, one, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(packed, two), uint16(n))
	default:
		return binary.BigEndian.AppendUint32(append(packed, four), uint32(n))
	}
}
