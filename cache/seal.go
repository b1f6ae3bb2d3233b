package cache

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// sealMark begins what is sealed. No JSON begins so.
const sealMark = '\x01'

// sealID bytes of a key's SHA-256 say which key something was sealed with.
const sealID = 4

// errSealed says that something was sealed with a key that is not there, or altered.
var errSealed = errors.New("it was sealed with another key, or altered")

// AnswerKeys are the keys with which answers are sealed at rest, AES-256-GCM each.
// The first seals, all open.
type AnswerKeys struct{ keys []answerKey }

type answerKey struct {
	id   [sealID]byte
	aead cipher.AEAD
}

// ParseAnswerKeys reads keys of 32 bytes, in base64 or hexadecimal, with commas
// between. An empty text is no key: nothing is sealed. Its errors quote no key.
func ParseAnswerKeys(text string) (AnswerKeys, error) {
	var all AnswerKeys
	if strings.TrimSpace(text) == "" {
		return all, nil
	}
	for i, one := range strings.Split(text, ",") {
		raw, err := decodeKey(strings.TrimSpace(one))
		if err != nil {
			return AnswerKeys{}, fmt.Errorf("key %d %w", i+1, err)
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return AnswerKeys{}, fmt.Errorf("key %d: %w", i+1, err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return AnswerKeys{}, fmt.Errorf("key %d: %w", i+1, err)
		}
		k := answerKey{aead: aead}
		sum := sha256.Sum256(append([]byte("key id\x00"), raw...))
		copy(k.id[:], sum[:])
		all.keys = append(all.keys, k)
	}
	return all, nil
}

func decodeKey(text string) ([]byte, error) {
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == 32 {
		return raw, nil
	}
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if raw, err := encoding.DecodeString(text); err == nil && len(raw) == 32 {
			return raw, nil
		}
	}
	return nil, errors.New("is not 32 bytes in base64 or hexadecimal; `openssl rand -base64 32` makes some")
}

// seals closes and opens what is at rest, and counts what it cannot open.
type seals struct {
	AnswerKeys
	unreadable prometheus.Counter
}

func newSeals(keys AnswerKeys) seals {
	return seals{AnswerKeys: keys, unreadable: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "mythic_cache_ai_unreadable_total", Help: "Answers, or pieces of them, that were sealed with a key that is not there. They count as misses.",
	})}
}

// close seals a text, which means nothing where it is bound to something else. Where
// there is no key it stays as it is. The form is
//
//	mark · id of the key · nonce · ciphertext and tag
func (s seals) close(text []byte, boundTo string) ([]byte, error) {
	if len(s.keys) == 0 {
		return text, nil
	}
	k := s.keys[0]
	nonce := make([]byte, k.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("seal an answer: %w", err)
	}
	b := make([]byte, 0, 1+sealID+len(nonce)+len(text)+k.aead.Overhead())
	b = append(b, sealMark)
	b = append(b, k.id[:]...)
	b = append(b, nonce...)
	return k.aead.Seal(b, nonce, text, []byte(boundTo)), nil
}

// open returns the text. What was never sealed is returned as it is: it is from
// before there was a key.
func (s seals) open(b []byte, boundTo string) ([]byte, error) {
	if len(b) == 0 || b[0] != sealMark {
		return b, nil
	}
	for _, k := range s.keys {
		from := 1 + sealID + k.aead.NonceSize()
		if len(b) < from || !bytes.Equal(b[1:1+sealID], k.id[:]) {
			continue
		}
		if text, err := k.aead.Open(nil, b[1+sealID:from], b[from:], []byte(boundTo)); err == nil {
			return text, nil
		}
	}
	return nil, errSealed
}

// count notes something that could not be opened.
func (s seals) count() { s.unreadable.Inc() }

// sealed returns the entry as it is kept: its body sealed, where there is a key.
func (s *Store) sealed(e Entry) (Entry, error) {
	if len(s.seals.keys) == 0 {
		return e, nil
	}
	var err error
	e.kept, err = s.seals.close(e.Body, s.keys.entry(e.View, e.Key))
	return e, err
}

// unsealed returns an entry of a model's view as readers have it. One that cannot be
// opened is as if it were not there.
func (s *Store) unsealed(e Entry) (Entry, error) {
	if len(e.Body) == 0 || e.Body[0] != sealMark {
		return e, nil
	}
	body, err := s.seals.open(e.Body, s.keys.entry(e.View, e.Key))
	if err != nil {
		s.seals.count()
		return Entry{}, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	e.kept, e.Body = e.Body, body
	return e, nil
}
