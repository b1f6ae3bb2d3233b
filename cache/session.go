package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// TokenHash is the SHA-256 of a token. The token itself is in no key, no value and
// no event.
type TokenHash [sha256.Size]byte

// HashToken returns the hash of a token.
func HashToken(token string) TokenHash { return sha256.Sum256([]byte(token)) }

// ParseTokenHash reads the 64 hexadecimal digits that String writes.
func ParseTokenHash(text string) (TokenHash, error) {
	var h TokenHash
	if b, err := hex.DecodeString(text); err != nil || copy(h[:], b) != len(h) || len(b) != len(h) {
		return TokenHash{}, errors.New("not the 64 hexadecimal digits of a SHA-256")
	}
	return h, nil
}

// String returns the hash in hexadecimal digits, as it stands in the key.
func (h TokenHash) String() string { return hex.EncodeToString(h[:]) }

// Session is an opaque token that stands for somebody. It lives for the TTL after
// its last use.
type Session struct {
	Hash    TokenHash
	Sub     string
	Created time.Time
	Expires time.Time // however much it is used; zero: while it is used
}

// last returns the end of a session that is used at a time.
func (s Session) last(used time.Time, ttl time.Duration) time.Time {
	end := used.Add(ttl)
	if !s.Expires.IsZero() && s.Expires.Before(end) {
		return s.Expires
	}
	return end
}

// CreateSessions stores sessions, each as if it had last been used when it was
// created. One that is there or has been revoked is left as it is, and one that has
// expired since is not stored: events come late and again.
func (s *Store) CreateSessions(ctx context.Context, sessions []Session, ttl time.Duration) error {
	now := s.peer.now()
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		for _, one := range sessions {
			if end := one.last(one.Created, ttl); end.After(now) {
				p.SetArgs(ctx, s.keys.session(one.Hash.String()), one.encode(), redis.SetArgs{Mode: "NX", ExpireAt: end})
			}
		}
	})
	if err != nil {
		return fmt.Errorf("create sessions: %w", err)
	}
	return nil
}

// Session looks up a token. A session of a user whose sessions have all been revoked
// since is none.
func (s *Store) Session(ctx context.Context, hash TokenHash) (session Session, ok bool, err error) {
	text, err := s.client.Get(ctx, s.keys.session(hash.String())).Result()
	if errors.Is(err, redis.Nil) {
		return Session{}, false, nil
	}
	if err != nil {
		return Session{}, false, fmt.Errorf("look up a session: %w", err)
	}
	session, err = decodeSession(text)
	if err != nil {
		return Session{}, false, nil //nolint:nilerr // revoked, or written by another release: it lets nobody in
	}
	session.Hash = hash
	if revoked, err := s.Revoked(ctx, Token{Sub: session.Sub, Issued: session.Created}); err != nil || revoked {
		return Session{}, false, err
	}
	return session, true, nil
}

// TouchSessions makes sessions live for the TTL from now on. It prolongs what is
// there and never shortens it; what has been revoked stays so.
func (s *Store) TouchSessions(ctx context.Context, sessions []Session, ttl time.Duration) error {
	now := s.peer.now()
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, one := range sessions {
			// GT: a revocation lives longer than any session, and keeps its time.
			p.Do(ctx, "PEXPIREAT", s.keys.session(one.Hash.String()), one.last(now, ttl).UnixMilli(), "GT")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("touch sessions: %w", err)
	}
	return nil
}

// What a value under a session's key begins with: its schema, and what it is.
const (
	sessionLive    = "1l" // created and expires in Unix milliseconds, the user; full stops between
	sessionRevoked = "1r" // when, in Unix milliseconds; behind that an s if it was a session
)

func (s Session) encode() string {
	expires := int64(0)
	if !s.Expires.IsZero() {
		expires = s.Expires.UnixMilli()
	}
	return sessionLive + strconv.FormatInt(s.Created.UnixMilli(), 10) + "." + strconv.FormatInt(expires, 10) + "." + s.Sub
}

func decodeSession(text string) (Session, error) {
	rest, ok := strings.CutPrefix(text, sessionLive)
	if !ok {
		return Session{}, errCorrupt
	}
	created, rest, _ := strings.Cut(rest, ".")
	expires, sub, _ := strings.Cut(rest, ".")
	at, err := strconv.ParseInt(created, 10, 64)
	if err != nil {
		return Session{}, errCorrupt
	}
	end, err := strconv.ParseInt(expires, 10, 64)
	if err != nil || sub == "" {
		return Session{}, errCorrupt
	}
	s := Session{Sub: sub, Created: time.UnixMilli(at)}
	if end != 0 {
		s.Expires = time.UnixMilli(end)
	}
	return s, nil
}
