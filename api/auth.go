package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/cache"
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
	Mode       string        // AuthJWT (where empty), AuthSession, or AuthHeader, which trusts X-User-Id from a gateway
	JWTSecret  string        // of HS256, which wants MinSecret bytes; empty: no such token is accepted
	JWKS       string        // URL or file of an issuer's keys; empty: none
	Issuer     string        // demanded of a token where set
	Audience   string        // demanded of a token where set
	Leeway     time.Duration // how far the issuer's clock may be off
	SessionTTL time.Duration // of AuthSession: how long a session lives after its last use; a day where 0
}

// authenticator recognizes callers.
type authenticator struct {
	gateway bool        // trust X-User-Id
	keys    *keyring    // nil: none are needed
	door    *doorkeeper // nil: tokens are not looked at
	events  secret
	admin   secret
}

func newAuthenticator(o AuthOptions, eventsToken, adminToken string, store *cache.Store, log zerolog.Logger) (*authenticator, error) {
	a := &authenticator{events: newSecret(eventsToken), admin: newSecret(adminToken)}
	if o.Leeway < 0 || o.SessionTTL < 0 {
		return nil, errors.New("neither AUTH_LEEWAY nor REDIS_SESSION_TTL may be negative")
	}
	if o.JWKS != "" && o.Mode != "" && o.Mode != AuthJWT {
		return nil, fmt.Errorf("AUTH_JWKS is for AUTH_MODE=jwt, and AUTH_MODE is %s", o.Mode)
	}
	if o.SessionTTL == 0 {
		o.SessionTTL = 24 * time.Hour
	}
	switch o.Mode {
	case "", AuthJWT:
		if err := a.verifyTokens(o, store, log); err != nil {
			return nil, err
		}
	case AuthSession:
		a.door = newDoorkeeper(store, nil, o.SessionTTL, log)
	case AuthHeader:
		a.gateway = true
	default:
		return nil, fmt.Errorf("AUTH_MODE is %q, which is none of jwt, session, header", o.Mode)
	}
	return a, nil
}

// verifyTokens sets the authenticator up for tokens that are signed.
func (a *authenticator) verifyTokens(o AuthOptions, store *cache.Store, log zerolog.Logger) error {
	var verifier *tokens
	a.door = newDoorkeeper(store, func(ctx context.Context, token string) (verified, error) { return verifier.verify(ctx, token) }, 0, log)
	if o.JWKS != "" {
		source, every, unsafe, err := newKeySource(o.JWKS)
		if err != nil {
			return err
		}
		if unsafe != "" {
			log.Warn().Msg(unsafe)
		}
		a.keys = newKeyring(source, every, a.door.memory.empty, log)
	}
	verifier = newTokens(o, a.keys)
	return nil
}

// run keeps what the authenticator knows up to date until the context ends.
func (a *authenticator) run(ctx context.Context) error {
	var group sync.WaitGroup
	if a.keys != nil {
		group.Go(func() { a.keys.run(ctx) })
	}
	var err error
	if a.door != nil {
		err = a.door.run(ctx)
	}
	group.Wait()
	return err
}

// ready returns what keeps the authenticator from recognizing anybody.
func (a *authenticator) ready() error {
	if a.keys == nil {
		return nil
	}
	return a.keys.ready()
}

// RunAuth hears of revocations, and keeps the keys of tokens and the sessions that are
// used, until the context ends. Without it each token is looked up in Redis.
func (s *Server) RunAuth(ctx context.Context) error { return s.auth.run(ctx) }

// AuthReady returns nil unless the keys that tokens are verified with have never been
// there.
func (s *Server) AuthReady() error { return s.auth.ready() }

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

// identify returns who asks, or a problem. What a gateway passes on that is no token of
// ours, since it is the gateway's own, is none.
func (a *authenticator) identify(r *http.Request, need access) (caller, error) {
	if need == open {
		return caller{}, nil
	}
	token, err := bearer(r)
	if err != nil && !a.gateway {
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
	return a.door.caller(r.Context(), token)
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
