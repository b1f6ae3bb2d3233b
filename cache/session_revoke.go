package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// RevokedFor is how long a revocation is kept that does not say when its token
// expires. It is the longest that a browser keeps a cookie (RFC 6265bis, 5.5).
const RevokedFor = 400 * 24 * time.Hour

// sessionRevokedFor is how much longer than a session would have lived its revocation is
// kept that does not say when it expires: events of its creation come late and again.
const sessionRevokedFor = 24 * time.Hour

// MaxLeeway is the longest that a token may be accepted after its end, since clocks
// differ. Revocations outlast it.
const MaxLeeway = 10 * time.Minute

// Revocation says that tokens are not good any more: one, or all of a user that were
// issued until then.
type Revocation struct {
	id string    // what the key says: the token's hash, jti:<hash of the jti>, sub:<user>
	At time.Time // of a user's tokens, those issued until then are meant
	// Until is when the tokens expire by themselves: MaxLeeway after that, they need not
	// be kept out any longer. Zero: RevokedFor after At; of a session that is in Redis,
	// sessionRevokedFor after it would have ended.
	Until time.Time
}

// RevokedToken revokes a token, or an opaque session.
func RevokedToken(h TokenHash) Revocation { return Revocation{id: h.String()} }

// RevokedJTI revokes the token whose claim jti it is.
func RevokedJTI(jti string) Revocation { return Revocation{id: jtiID(jti)} }

// RevokedSub revokes all tokens of a user.
func RevokedSub(sub string) Revocation { return Revocation{id: subID(sub)} }

// A jti is as long as its issuer likes, so it is hashed.
func jtiID(jti string) string { return "jti:" + HashToken(jti).String() }
func subID(sub string) string { return "sub:" + sub }

// Token is what revocations know a token by. What is empty is not asked for.
type Token struct {
	Hash   TokenHash
	Twin   TokenHash // of the same token spelt in another way
	JTI    string
	Sub    string
	Issued time.Time // zero: not known, and so before any revocation
}

// Name returns what is revoked: the hash of a token as its String writes it, or one of
// the Names of the tokens that may be concerned.
func (r Revocation) Name() string { return r.id }

// Names returns by which names a revocation may concern the token, besides its hash.
func (t Token) Names() []string {
	var names []string
	if t.Twin != (TokenHash{}) {
		names = append(names, t.Twin.String())
	}
	if t.JTI != "" {
		names = append(names, jtiID(t.JTI))
	}
	if t.Sub != "" {
		names = append(names, subID(t.Sub))
	}
	return names
}

// Hits reports whether a revocation concerns a token.
func (r Revocation) Hits(t Token) bool {
	switch {
	case strings.HasPrefix(r.id, "sub:"):
		return r.id[len("sub:"):] == t.Sub && !t.Issued.After(r.At)
	case strings.HasPrefix(r.id, "jti:"):
		return t.JTI != "" && r.id == jtiID(t.JTI)
	default:
		return t.Hash != TokenHash{} && r.id == t.Hash.String() || t.Twin != TokenHash{} && r.id == t.Twin.String()
	}
}

// Revoke stores revocations and announces them to the processes that remember
// tokens, each in one step, also where Redis is full. Repeating one changes nothing;
// of two about a user the later one says all. One whose tokens have expired is left out.
//
// A Redis that is short of memory throws away what has a TTL and is seldom read, which
// is what revocations are: so they have none, and SweepRevocations removes them.
func (s *Store) Revoke(ctx context.Context, revocations []Revocation) error {
	now := s.peer.now()
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		for _, r := range revocations {
			until, more := r.Until.Add(MaxLeeway), time.Duration(0)
			if r.Until.IsZero() {
				until, more = r.At.Add(RevokedFor), sessionRevokedFor
			}
			if until.After(now) {
				call(ctx, p, &s.scripts.revoke, []string{s.keys.session(r.id), s.keys.revocations()},
					r.At.UnixMilli(), until.UnixMilli(), r.id, s.keys.revoked(), r.encode(), more.Milliseconds())
			}
		}
	})
	if err != nil {
		return fmt.Errorf("revoke tokens: %w", err)
	}
	return nil
}

// Revoked reports whether a token has been revoked by any of its names, in one round
// trip.
func (s *Store) Revoked(ctx context.Context, t Token) (bool, error) {
	var byHash, byTwin, byJTI, bySub *redis.StringCmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		if t.Hash != (TokenHash{}) {
			byHash = p.Get(ctx, s.keys.session(t.Hash.String()))
		}
		if t.Twin != (TokenHash{}) {
			byTwin = p.Get(ctx, s.keys.session(t.Twin.String()))
		}
		if t.JTI != "" {
			byJTI = p.Get(ctx, s.keys.session(jtiID(t.JTI)))
		}
		if t.Sub != "" {
			bySub = p.Get(ctx, s.keys.session(subID(t.Sub)))
		}
	})
	if err != nil {
		return false, fmt.Errorf("look whether a token was revoked: %w", err)
	}
	for _, one := range []*redis.StringCmd{byHash, byTwin, byJTI} {
		if one == nil || errors.Is(one.Err(), redis.Nil) {
			continue
		}
		if strings.HasPrefix(one.Val(), sessionRevoked) {
			return true, nil
		}
	}
	if bySub == nil || errors.Is(bySub.Err(), redis.Nil) {
		return false, nil
	}
	at, ok := revokedAt(bySub.Val())
	// What cannot be read lets nobody in.
	return !ok || !t.Issued.After(at), nil
}

// revokedAt reads the value of a revocation.
func revokedAt(text string) (time.Time, bool) {
	rest, ok := strings.CutPrefix(text, sessionRevoked)
	ms, err := strconv.ParseInt(rest, 10, 64)
	return time.UnixMilli(ms), ok && err == nil
}

// encode writes an announcement: schema, Unix milliseconds, a full stop, the id.
func (r Revocation) encode() string {
	return sessionRevoked + strconv.FormatInt(r.At.UnixMilli(), 10) + "." + r.id
}

func decodeRevocation(text string) (Revocation, error) {
	head, id, ok := strings.Cut(text, ".")
	at, read := revokedAt(head)
	if !ok || !read || id == "" {
		return Revocation{}, errCorrupt
	}
	return Revocation{id: id, At: at}, nil
}
