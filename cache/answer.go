package cache

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/gowebpki/jcs"
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
// RFC 8785 reads numbers as doubles, to which some seeds of 64 bits are equal
// that are not. Integers that a double may not hold keep their digits here.
//
// It refuses, wrapping ErrRequest, what is not one JSON object without repeated
// names, and a scope that is empty, too long or not UTF-8.
func AnswerKey(provider, scope string, request json.RawMessage) (key string, canonical []byte, err error) {
	if err := checkScope(scope); err != nil {
		return "", nil, err
	}
	if !utf8.ValidString(provider) {
		return "", nil, fmt.Errorf("%w: the provider's name is not UTF-8", ErrRequest)
	}
	canonical, err = canonicalObject(request, "stream", "stream_options", "user")
	if err != nil {
		return "", nil, err
	}
	// Names in the order of RFC 8785; the request is canonical already.
	var whole bytes.Buffer
	whole.WriteString(`{"provider":`)
	whole.Write(canonicalString(provider))
	whole.WriteString(`,"request":`)
	whole.Write(canonical)
	whole.WriteString(`,"scope":`)
	whole.Write(canonicalString(scope))
	whole.WriteByte('}')
	sum := sha256.Sum256(whole.Bytes())
	return hex.EncodeToString(sum[:]), canonical, nil
}

// OneTimeKey is AnswerKey for a request whose answer nobody else may have, its
// repetitions included: a nonce, which is not empty, sets it apart.
func OneTimeKey(provider, scope, nonce string, request json.RawMessage) (key string, canonical []byte, err error) {
	shared, canonical, err := AnswerKey(provider, scope, request)
	if err != nil {
		return "", nil, err
	}
	if nonce == "" || len(nonce) > MaxScope || !utf8.ValidString(nonce) {
		return "", nil, fmt.Errorf("%w: its nonce is empty, too long or not UTF-8", ErrRequest)
	}
	sum := sha256.Sum256([]byte("once\x00" + nonce + "\x00" + shared))
	return hex.EncodeToString(sum[:]), canonical, nil
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

func checkScope(scope string) error {
	switch {
	case scope == "":
		return fmt.Errorf("%w: it names no scope", ErrRequest)
	case len(scope) > MaxScope:
		return fmt.Errorf("%w: its scope has %d bytes; at most %d are allowed", ErrRequest, len(scope), MaxScope)
	case !utf8.ValidString(scope):
		return fmt.Errorf("%w: its scope is not UTF-8", ErrRequest)
	}
	return nil
}

// canonicalObject returns a JSON object in canonical form, without some of its
// members.
func canonicalObject(text []byte, without ...string) ([]byte, error) {
	// encoding/json bounds the nesting, and a name that comes twice is refused
	// by jcs below, before the map would hide it.
	if !json.Valid(text) {
		return nil, fmt.Errorf("%w: the request is not JSON", ErrRequest)
	}
	if first := bytes.TrimLeft(text, " \t\r\n"); first[0] != '{' {
		return nil, fmt.Errorf("%w: the request is not a JSON object", ErrRequest)
	}
	mark := rand.Text()
	canonical, err := transform(markIntegers(text, mark))
	if err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(canonical, &members); err != nil {
		return nil, fmt.Errorf("%w: the request cannot be read", ErrRequest)
	}
	for _, name := range without {
		delete(members, name)
	}
	rest, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("%w: the request cannot be written", ErrRequest)
	}
	if canonical, err = transform(rest); err != nil {
		return nil, err
	}
	return unmarkIntegers(canonical, mark), nil
}

// transform is jcs.Transform with an error that does not quote its input.
func transform(text []byte) ([]byte, error) {
	canonical, err := jcs.Transform(text)
	if err != nil {
		return nil, fmt.Errorf("%w: the request is no I-JSON (RFC 7493): a name comes twice, a number is out of range, or text is not Unicode", ErrRequest)
	}
	return canonical, nil
}

// canonicalString writes a string as RFC 8785 does. The string is UTF-8.
func canonicalString(s string) []byte {
	quoted, err := json.Marshal(s)
	if err == nil {
		quoted, err = jcs.Transform(quoted)
	}
	if err != nil {
		panic(err) // neither fails for a string: json replaces what is not UTF-8
	}
	return quoted
}
