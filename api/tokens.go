package api

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"mythiccache/cache"
)

const maxToken = 8 << 10 // bytes of a token that is looked at

// tokens verifies JSON Web Tokens: with a shared secret, with the keys of an issuer,
// or either.
type tokens struct {
	secret []byte
	keys   *keyring // nil: none
	parser *jwt.Parser
	leeway time.Duration
}

func newTokens(o AuthOptions, keys *keyring) *tokens {
	// Naming the methods is what refuses "none".
	var methods []string
	if o.JWTSecret != "" { // an empty secret would verify whatever it signed
		methods = append(methods, jwt.SigningMethodHS256.Alg())
	}
	if keys != nil {
		methods = append(methods, asymmetric...)
	}
	if len(methods) == 0 {
		methods = []string{""} // nothing; an empty list would be everything
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(methods), jwt.WithStrictDecoding(), jwt.WithLeeway(o.Leeway), jwt.WithIssuedAt(),
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	if o.Audience != "" {
		options = append(options, jwt.WithAudience(o.Audience))
	}
	return &tokens{secret: []byte(o.JWTSecret), keys: keys, parser: jwt.NewParser(options...), leeway: o.Leeway}
}

// verify checks everything about a token but whether it has been revoked. Its errors
// are problems.
func (t *tokens) verify(ctx context.Context, token string) (verified, error) {
	if strings.ContainsAny(token, "\r\n") { // which base64 would pass over: the token would have many spellings
		return verified{}, unauthorized("invalid_token", why(jwt.ErrTokenMalformed))
	}
	var claims jwt.RegisteredClaims
	parsed, err := t.parser.ParseWithClaims(token, &claims, func(token *jwt.Token) (any, error) { return t.key(ctx, token) })
	if errors.Is(err, errNoKeys) {
		return verified{}, problem(kindNotReady, "the keys that tokens are verified with could not be fetched yet").later(time.Second)
	}
	if err != nil {
		return verified{}, unauthorized("invalid_token", why(err))
	}
	if !nameable(claims.Subject) {
		return verified{}, unauthorized("invalid_token", "the token has no usable subject")
	}
	v := verified{caller: userCaller(claims.Subject), token: cache.Token{Hash: cache.HashToken(token), JTI: claims.ID, Sub: claims.Subject}}
	v.token.Twin = twinOf(token, parsed)
	if claims.IssuedAt != nil {
		// The issuer's clock may be ahead: it may have signed before a revocation what it
		// says is from after it.
		v.token.Issued = claims.IssuedAt.Add(-t.leeway)
	}
	switch {
	case claims.ExpiresAt != nil:
		v.end = claims.ExpiresAt.Add(t.leeway)
	case parsed.Method.Alg() != jwt.SigningMethodHS256.Alg():
		// Whoever has the secret may make tokens that do not end (RFC 7519, 4.1.4); an
		// issuer of many apps' tokens never means to.
		return verified{}, unauthorized("invalid_token", why(jwt.ErrTokenRequiredClaimMissing))
	}
	return v, nil
}

// key gives the secret to HS256 and the issuer's keys to the others, so that no public
// key is ever taken for a secret. Tokens with critical extensions get neither, since
// none is understood here (RFC 7515, 4.1.11).
func (t *tokens) key(ctx context.Context, token *jwt.Token) (any, error) {
	if _, ok := token.Header["crit"]; ok {
		return nil, errors.New("critical header parameters are not understood")
	}
	if token.Method == jwt.SigningMethodHS256 {
		return t.secret, nil
	}
	kid, named := token.Header["kid"].(string)
	if _, there := token.Header["kid"]; there && (!named || kid == "") {
		return nil, errUnknownKey
	}
	found, err := t.keys.find(ctx, kid, token.Method.Alg())
	if err != nil {
		return nil, err
	}
	set := jwt.VerificationKeySet{Keys: make([]jwt.VerificationKey, len(found))}
	for i, key := range found {
		set.Keys[i] = key
	}
	return set, nil
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
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
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
