package api

import (
	"errors"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	maxToken      = 8 << 10   // bytes of a token that is looked at
	remembered    = 2048      // verified tokens of one generation
	maxRemembered = time.Hour // at most, whatever a token's exp says
)

// tokens verifies JSON Web Tokens and remembers verified ones until they expire,
// so that a hot caller costs no signature check. Two generations of bounded size
// take turns: what was used in neither is forgotten.
type tokens struct {
	secret []byte
	parser *jwt.Parser

	mu        sync.Mutex
	new, old  map[string]verified
	renewedAt time.Time
}

// verified is what is remembered of a token.
type verified struct {
	caller caller
	until  time.Time
}

func newTokens(o AuthOptions) *tokens {
	// Naming the one method is what refuses "none" and a public key taken for a
	// shared secret.
	options := []jwt.ParserOption{
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithStrictDecoding(),
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	if o.Audience != "" {
		options = append(options, jwt.WithAudience(o.Audience))
	}
	return &tokens{secret: []byte(o.JWTSecret), parser: jwt.NewParser(options...), new: map[string]verified{}}
}

// caller verifies a token. Its errors are problems.
func (t *tokens) caller(token string) (caller, error) {
	if len(token) > maxToken {
		return caller{}, unauthorized("invalid_token", "the token is too long")
	}
	now := time.Now()
	if c, ok := t.recall(token, now); ok {
		return c, nil
	}
	var claims jwt.RegisteredClaims
	if _, err := t.parser.ParseWithClaims(token, &claims, t.key); err != nil {
		return caller{}, unauthorized("invalid_token", why(err))
	}
	if !nameable(claims.Subject) {
		return caller{}, unauthorized("invalid_token", "the token has no usable subject")
	}
	c := userCaller(claims.Subject)
	// Whether a token ends is for its signer to say (RFC 7519, 4.1.4).
	until := now.Add(maxRemembered)
	if claims.ExpiresAt != nil {
		until = claims.ExpiresAt.Time
	}
	t.remember(token, verified{caller: c, until: until}, now)
	return c, nil
}

// key gives the secret to tokens without critical extensions, none of which is
// understood here (RFC 7515, 4.1.11).
func (t *tokens) key(token *jwt.Token) (any, error) {
	if len(t.secret) == 0 { // an empty key would verify whatever it signed
		return nil, errors.New("there is no secret to verify tokens with")
	}
	if _, ok := token.Header["crit"]; ok {
		return nil, errors.New("critical header parameters are not understood")
	}
	return t.secret, nil
}

// why names what is wrong with a token in words that reveal nothing of ours.
func why(err error) string {
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return "the token is malformed"
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
		return "the token's signature is not valid here"
	case errors.Is(err, jwt.ErrTokenExpired):
		return "the token has expired"
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return "the token is not valid yet"
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return "the token lacks a claim that is required"
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return "the token is from another issuer"
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return "the token is for another audience"
	default:
		return "the token is not valid"
	}
}

func (t *tokens) recall(token string, now time.Time) (caller, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.new[token]
	if !ok {
		if v, ok = t.old[token]; ok {
			t.keep(token, v, now)
		}
	}
	return v.caller, ok && now.Before(v.until)
}

func (t *tokens) remember(token string, v verified, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if limit := now.Add(maxRemembered); v.until.After(limit) {
		v.until = limit
	}
	t.keep(token, v, now)
}

// keep is called with the lock held.
func (t *tokens) keep(token string, v verified, now time.Time) {
	if len(t.new) >= remembered || now.Sub(t.renewedAt) > maxRemembered {
		t.old, t.new = t.new, make(map[string]verified, len(t.new))
		t.renewedAt = now
	}
	t.new[token] = v
}
