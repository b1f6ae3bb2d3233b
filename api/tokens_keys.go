package api

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/rs/zerolog"
)

// asymmetric are the methods that an issuer's keys may verify.
var asymmetric = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// Bounds of a key set, and of an RSA key in bits: shorter ones can be broken (RFC 7518,
// section 3.3), longer ones take long to verify with.
const (
	maxKeySet  = 256 << 10 // bytes
	maxKeys    = 100
	minRSABits = 2048
	maxRSABits = 8192
)

var (
	errNoKeys     = errors.New("no key set has been read yet")
	errUnknownKey = errors.New("no key of the set is the token's")
)

// publicKey is one key of a set, and what it may verify.
type publicKey struct {
	kid string
	alg string // "": any that fits the key
	key crypto.PublicKey
}

// fits reports whether the key may verify a method. An elliptic curve has one method,
// which the signature check itself would not demand.
func (k publicKey) fits(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		return alg == "ES256" && key.Curve == elliptic.P256() || alg == "ES384" && key.Curve == elliptic.P384() || alg == "ES512" && key.Curve == elliptic.P521()
	case ed25519.PublicKey:
		return alg == "EdDSA"
	default:
		return false
	}
}

// parseKeys reads a key set (RFC 7517). A key that is of no use here is left out, since
// issuers add new sorts beside the old ones; a set without any is an error.
func parseKeys(text []byte) ([]publicKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("it is no JSON Web Key Set")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("it has %d keys; at most %d are read", len(set.Keys), maxKeys)
	}
	var keys []publicKey
	for _, one := range set.Keys {
		if key, ok := parseKey(one); ok {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no key that signatures can be verified with")
	}
	return keys, nil
}

func parseKey(text []byte) (publicKey, bool) {
	var m jwkset.JWKMarshal
	if json.Unmarshal(text, &m) != nil || m.USE != "" && m.USE != jwkset.UseSig {
		return publicKey{}, false
	}
	if len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify) {
		return publicKey{}, false
	}
	// The key alone counts, not the certificates that may stand beside it.
	m.X5C, m.X5T, m.X5TS256, m.X5U = nil, "", "", ""
	jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return publicKey{}, false
	}
	key := publicKey{kid: m.KID, alg: m.ALG.String(), key: jwk.Key()}
	if private, ok := key.key.(interface{ Public() crypto.PublicKey }); ok {
		key.key = private.Public()
	}
	if rsaKey, ok := key.key.(*rsa.PublicKey); ok {
		if bits := rsaKey.N.BitLen(); bits < minRSABits || bits > maxRSABits || rsaKey.E < 3 || rsaKey.E%2 == 0 {
			return publicKey{}, false
		}
	}
	return key, slices.ContainsFunc(asymmetric, key.fits)
}

// keyring holds the keys of an issuer and keeps them as they are at their source. While
// the source is away, the last known keys go on.
type keyring struct {
	source  keySource
	changed func() // called when a key has gone
	log     zerolog.Logger

	every, atMost time.Duration // how often it is read, and how often for an unknown key

	mu    sync.Mutex
	keys  []publicKey
	err   error         // of the last read
	asked time.Time     // when a read was last asked for by a token
	due   bool          // it has not ended yet
	next  chan struct{} // closed after the next read
	wake  chan struct{} // asks for one
}

// keySource reads a key set.
type keySource interface {
	read(ctx context.Context) ([]byte, error)
}

// How often a key set is read: an issuer that is about to use a new key publishes it
// well before; where it did not, a token with the new key makes us look, once in a
// while, and waits for so long.
const (
	keysEvery    = 5 * time.Minute
	unknownEvery = 10 * time.Second
	unknownWait  = 2 * time.Second
)

func newKeyring(source keySource, every time.Duration, changed func(), log zerolog.Logger) *keyring {
	return &keyring{
		source: source, changed: changed, log: log, every: every, atMost: unknownEvery,
		err: errNoKeys, next: make(chan struct{}), wake: make(chan struct{}, 1),
	}
}

// run reads the key set again and again until the context ends, sooner after a failure.
func (k *keyring) run(ctx context.Context) {
	const firstPause = 250 * time.Millisecond
	pause := firstPause
	for {
		wait := k.every
		if err := k.read(ctx); err != nil {
			wait = min(pause, k.every)
			pause = min(2*pause, time.Minute)
		} else {
			pause = firstPause
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-k.wake:
			timer.Stop()
		}
	}
}

// read reads the key set once.
func (k *keyring) read(ctx context.Context) error {
	text, err := k.source.read(ctx)
	var keys []publicKey
	if err == nil {
		keys, err = parseKeys(text)
	}
	k.mu.Lock()
	before, failed := k.keys, k.err
	k.err = err
	if err == nil {
		k.keys = keys
	}
	k.due = false
	close(k.next)
	k.next = make(chan struct{})
	k.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err != nil && (failed == nil || failed.Error() != err.Error()):
		k.log.Warn().Err(err).Int("known", len(before)).Msg("the keys of tokens cannot be read; those that are known go on")
	case err == nil && failed != nil:
		k.log.Info().Int("keys", len(keys)).Msg("the keys of tokens have been read")
	}
	if err == nil && slices.ContainsFunc(before, func(old publicKey) bool { return !slices.ContainsFunc(keys, old.same) }) {
		k.log.Info().Int("keys", len(keys)).Msg("a key of tokens has gone")
		k.changed()
	}
	return err
}

// same reports whether two keys are one.
func (k publicKey) same(other publicKey) bool {
	key, ok := k.key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.kid == other.kid && k.alg == other.alg && key.Equal(other.key)
}

// find returns the keys that a token may have been signed with. One whose key is not
// there makes the set be read again, at a bounded rate. A token that names no key is
// verified with the one that fits it, provided that there is one alone.
func (k *keyring) find(ctx context.Context, kid, alg string) ([]crypto.PublicKey, error) {
	found, next := k.look(kid, alg)
	if len(found) == 0 && next != nil {
		timer := time.NewTimer(unknownWait)
		defer timer.Stop()
		select {
		case <-next:
		case <-timer.C:
		case <-ctx.Done():
		}
		found, _ = k.look(kid, alg)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case len(k.keys) == 0:
		return nil, errNoKeys
	case len(found) == 0, kid == "" && len(found) > 1:
		return nil, errUnknownKey
	}
	return found, nil
}

// look returns the keys that are there; where there are none and the set may be read
// again, also what is closed once it has been.
func (k *keyring) look(kid, alg string) (found []crypto.PublicKey, next <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	known := false
	for _, key := range k.keys {
		if kid != "" && key.kid != kid {
			continue
		}
		known = true
		if key.fits(alg) {
			found = append(found, key.key)
		}
	}
	switch {
	case known:
		return found, nil
	case k.due:
		return nil, k.next
	case time.Since(k.asked) < k.atMost:
		return nil, nil
	}
	k.asked, k.due = time.Now(), true
	select {
	case k.wake <- struct{}{}:
	default: // it is about to be read anyway
	}
	return nil, k.next
}

// ready returns nil once there are keys.
func (k *keyring) ready() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) == 0 {
		return fmt.Errorf("AUTH_JWKS: %w", k.err)
	}
	return nil
}
