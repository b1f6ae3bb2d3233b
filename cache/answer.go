package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// MaxScope is the length that a scope may have, in bytes.
const MaxScope = 512

// ErrRequest is wrapped by what is wrong with a request for an answer. The
// sentences name fields and never quote what stands in them: they end in logs
// and dead letters, where no prompt may be read.
var ErrRequest = errors.New("bad request for an answer")

// AnswerKey names the answer to a request: the SHA-256, in hexadecimal, of the
// RFC 8785 canonical form of {"provider","request","scope"}. Of the request all
// that can change the answer is left in, fields that this program does not know
// included; stream, stream_options and user are left out. What remains is
// returned in canonical form: it is what a model should be sent, so that one key
// stands for one question exactly.
//
// Two things are as they are written, unlike in RFC 8785: the digits of integers, and the
// order of a schema's properties.
//
// It refuses, wrapping ErrRequest, what is not one JSON object without repeated
// names, and a scope that is empty, too long or not UTF-8.
func AnswerKey(provider, scope string, request json.RawMessage) (key string, canonical []byte, err error) {
	if err := checkNames(provider, scope); err != nil {
		return "", nil, err
	}
	all, err := readMembers(request)
	if err != nil {
		return "", nil, err
	}
	canonical = all.without(unasked...).object()
	return keyOfAnswer(provider, scope, canonical), canonical, nil
}

// unasked are the members of a request that change nothing of its answer.
var unasked = []string{"stream", "stream_options", "user"}

// keyOfAnswer is the key of a request in canonical form.
func keyOfAnswer(provider, scope string, canonical []byte) string {
	// Names in the order of RFC 8785.
	whole := make([]byte, 0, len(canonical)+len(provider)+len(scope)+64)
	whole = appendString(append(whole, `{"provider":`...), provider)
	whole = append(append(whole, `,"request":`...), canonical...)
	whole = appendString(append(whole, `,"scope":`...), scope)
	sum := sha256.Sum256(append(whole, '}'))
	var digits [2 * sha256.Size]byte
	hex.Encode(digits[:], sum[:])
	return string(digits[:])
}

// OneTimeKey is AnswerKey for a request whose answer nobody else may have, its
// repetitions included: a nonce, which is not empty, sets it apart.
func OneTimeKey(provider, scope, nonce string, request json.RawMessage) (key string, canonical []byte, err error) {
	shared, canonical, err := AnswerKey(provider, scope, request)
	if err != nil {
		return "", nil, err
	}
	key, err = oneTimeKey(shared, nonce)
	return key, canonical, err
}

// oneTimeKey sets a key apart.
func oneTimeKey(shared, nonce string) (string, error) {
	if nonce == "" || len(nonce) > MaxScope || !utf8.ValidString(nonce) {
		return "", fmt.Errorf("%w: its nonce is empty, too long or not UTF-8", ErrRequest)
	}
	sum := sha256.Sum256([]byte("once\x00" + nonce + "\x00" + shared))
	return hex.EncodeToString(sum[:]), nil
}

// IsAnswerKey reports whether a text has the form of an answer's key.
func IsAnswerKey(key string) bool {
	if len(key) != 2*sha256.Size {
		return false
	}
	for i := range len(key) {
		if c := key[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func checkNames(provider, scope string) error {
	switch {
	case !utf8.ValidString(provider):
		return fmt.Errorf("%w: the provider's name is not UTF-8", ErrRequest)
	case scope == "":
		return fmt.Errorf("%w: it names no scope", ErrRequest)
	case len(scope) > MaxScope:
		return fmt.Errorf("%w: its scope has %d bytes; at most %d are allowed", ErrRequest, len(scope), MaxScope)
	case !utf8.ValidString(scope):
		return fmt.Errorf("%w: its scope is not UTF-8", ErrRequest)
	}
	return nil
}

// canonicalString writes a string as RFC 8785 does. The string is UTF-8.
func canonicalString(s string) []byte { return appendString(make([]byte, 0, len(s)+2), s) }

// appendString appends what canonicalString writes.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		b = appendRune(b, r)
	}
	return append(b, '"')
}
