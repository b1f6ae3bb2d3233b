package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// The modes of authentication.
const (
	AuthJWT     = "jwt"
	AuthHeader  = "header"
	AuthSession = "session"
)

// MinSecret is how many bytes a secret of HS256 must have (RFC 7518, section 3.2).
// A shorter one is accepted, since the signer has chosen it; warn of it.
const MinSecret = 32

// AuthOptions says how callers are recognized.
type AuthOptions struct {
	Mode      string // AuthJWT (where empty) or AuthHeader, which trusts X-User-Id from a gateway
	JWTSecret string // of HS256, which wants MinSecret bytes; empty: no token is accepted
	Issuer    string // demanded of a token where set
	Audience  string // demanded of a token where set
	JWKS      string // refused for now
}

// authenticator recognizes callers.
type authenticator struct {
	gateway bool // trust X-User-Id
	tokens  *tokens
	events  secret
	admin   secret
}

func newAuthenticator(o AuthOptions, eventsToken, adminToken string) (*authenticator, error) {
	a := &authenticator{events: newSecret(eventsToken), admin: newSecret(adminToken)}
	if o.JWKS != "" {
		return nil, errors.New("AUTH_JWKS is not supported yet: set AUTH_JWT_SECRET, or AUTH_MODE=header behind a gateway that verifies the tokens")
	}
	switch o.Mode {
	case "", AuthJWT:
		a.tokens = newTokens(o)
	case AuthHeader:
		a.gateway = true
	case AuthSession:
		return nil, errors.New("AUTH_MODE=session is not supported yet: use jwt or header")
	default:
		return nil, fmt.Errorf("AUTH_MODE is %q, which is neither jwt nor header", o.Mode)
	}
	return a, nil
}

// secret is a token of ours, kept hashed so that comparing it takes equally long
// whatever is shown.
type secret struct {
	set bool
	sum [sha256.Size]byte
}

func newSecret(text string) secret { return secret{set: text != "", sum: sha256.Sum256([]byte(text))} }

// is reports whether the text is the secret. One that is not set is nobody's.
func (s secret) is(text string) bool {
	if !s.set || text == "" {
		return false
	}
	sum := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(sum[:], s.sum[:]) == 1
}

// bearer returns the token that the request shows; "" where it shows none.
func bearer(r *http.Request) (string, error) {
	values := r.Header["Authorization"]
	switch len(values) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", unauthorized("invalid_request", "more than one Authorization header")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", unauthorized("invalid_request", "Authorization is not of the form Bearer <token>")
	}
	return token, nil
}

// identify returns who asks, or a problem.
func (a *authenticator) identify(r *http.Request, need access) (caller, error) {
	if need == open {
		return caller{}, nil
	}
	token, err := bearer(r)
	if err != nil {
		return caller{}, err
	}
	if a.events.is(token) {
		user, err := namedUser(r)
		if err == nil && need == named && user == "" {
			err = problem(kindBadRequest, "the app's token stands for no user: name one in X-User-Id")
		}
		return appCaller(user), err
	}
	if need == app {
		return caller{}, a.notTheApp(token)
	}
	c, err := a.user(r, token)
	if err == nil && need == named && c.user == "" {
		err = unauthorized("", "this is for users: show who you are")
	}
	return c, err
}

// user recognizes a caller that is not the app.
func (a *authenticator) user(r *http.Request, token string) (caller, error) {
	if a.gateway {
		user, err := namedUser(r)
		if err != nil || user != "" {
			return userCaller(user), err
		}
		return addressCaller(r, true), nil
	}
	if token == "" {
		return addressCaller(r, false), nil
	}
	return a.tokens.caller(token)
}

// namedUser reads X-User-Id. Only who is trusted with it may be believed.
func namedUser(r *http.Request) (string, error) {
	values := r.Header["X-User-Id"]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 || !nameable(values[0]) {
		return "", problem(kindBadRequest, "X-User-Id does not name one user")
	}
	return values[0], nil
}

func (a *authenticator) notTheApp(token string) *Problem {
	switch {
	case !a.events.set:
		return problem(kindForbidden, "no EVENTS_TOKEN is configured, so nobody may do this")
	case token == "":
		return unauthorized("", "this is for the app: show its token")
	default:
		return unauthorized("invalid_token", "this is for the app, and the token is not the app's")
	}
}

// administers reports whether the request shows ADMIN_TOKEN.
func (a *authenticator) administers(r *http.Request) bool {
	token, err := bearer(r)
	return err == nil && a.admin.is(token)
}

// unauthorized is a 401 with its challenge (RFC 6750). The detail is one of our
// own sentences, so it can be quoted as it is.
func unauthorized(code, detail string) *Problem {
	p := problem(kindUnauthorized, detail)
	p.challenge = `Bearer realm="mythic-cache"`
	if code != "" {
		p.challenge += `, error="` + code + `", error_description="` + detail + `"`
	}
	return p
}
