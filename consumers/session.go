package consumers

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// SessionsOptions are the choices of Sessions. The zero value is usable.
type SessionsOptions struct {
	TTL  time.Duration       // how long a session lives after its last use; a day where 0
	Rest stream.BatchHandler // of the topic's other events, those of a table named session; nil: nobody wants them
	Log  zerolog.Logger
}

// Sessions keeps who may come in: it stores the sessions that the app has made, and
// what the app has revoked. It needs Redis and nothing else. Handle is the handler of
// topic "session" in group "invalidate".
type Sessions struct {
	store *cache.Store
	o     SessionsOptions
}

// NewSessions makes the keeper of the sessions in store.
func NewSessions(store *cache.Store, o SessionsOptions) *Sessions {
	if o.TTL == 0 {
		o.TTL = 24 * time.Hour
	}
	return &Sessions{store: store, o: o}
}

// Handle applies a batch. Every event may come again and in any order: what was
// revoked stays so, whether its creation is heard of before or after.
func (s *Sessions) Handle(ctx context.Context, messages []*message.Message) []error {
	b := newBatch(messages)
	var others []int
	var created []cache.Session
	var revoked []cache.Revocation
	var makes, revokes []int // the places of each
	b.events(func(place int, e event.Event) {
		switch e.Type {
		case event.SessionCreated:
			one, err := newSession(e)
			b.fail(err, place)
			if err == nil {
				created, makes = append(created, one), append(makes, place)
			}
		case event.SessionRevoked:
			one, err := newRevocation(e)
			b.fail(err, place)
			if err == nil {
				revoked, revokes = append(revoked, one), append(revokes, place)
			}
		default:
			others = append(others, place)
		}
	})
	if len(revoked) > 0 {
		b.fail(paused(s.store.Revoke(ctx, revoked)), revokes...)
	}
	if len(created) > 0 {
		b.fail(paused(s.store.CreateSessions(ctx, created, s.o.TTL)), makes...)
	}
	s.o.Log.Debug().Int("created", len(created)).Int("revoked", len(revoked)).Msg("sessions")
	s.rest(ctx, b, others)
	return b.result()
}

// rest hands on what is about no session.
func (s *Sessions) rest(ctx context.Context, b *batch, places []int) {
	if s.o.Rest == nil || len(places) == 0 {
		return
	}
	others := make([]*message.Message, len(places))
	for i, place := range places {
		others[i] = b.messages[place]
	}
	for i, err := range s.o.Rest(ctx, others) {
		b.fail(err, places[i])
	}
}

// sessionData is the data of session.created and session.revoked. It names a token by
// its hash, and has no place for the token.
type sessionData struct {
	SHA256  string          `json:"sha256"`
	JTI     string          `json:"jti"`
	Sub     string          `json:"sub"`
	Expires json.RawMessage `json:"expires_at"` // RFC 3339, or seconds since 1970 as in a token's exp
}

// newSession reads session.created: whose token it is, and for how long at most.
func newSession(e event.Event) (cache.Session, error) {
	d, expires, err := readSession(e)
	if err != nil {
		return cache.Session{}, err
	}
	if d.SHA256 == "" {
		d.SHA256 = e.Subject
	}
	hash, err := cache.ParseTokenHash(d.SHA256)
	switch {
	case err != nil:
		return cache.Session{}, fmt.Errorf("%w: sha256 is %w", stream.ErrReject, err)
	case d.Sub == "" || len(d.Sub) > event.MaxName || strings.ContainsRune(d.Sub, 0):
		return cache.Session{}, fmt.Errorf("%w: sub names nobody", stream.ErrReject)
	}
	return cache.Session{Hash: hash, Sub: d.Sub, Created: happened(e), Expires: expires}, nil
}

// newRevocation reads session.revoked, which names a token by its hash or jti, or a
// user. Where the data names neither, the subject does: a hash where it looks like one.
func newRevocation(e event.Event) (cache.Revocation, error) {
	d, expires, err := readSession(e)
	if err != nil {
		return cache.Revocation{}, err
	}
	if d.SHA256 == "" && d.JTI == "" && d.Sub == "" {
		if _, err := cache.ParseTokenHash(e.Subject); err == nil {
			d.SHA256 = e.Subject
		} else {
			d.Sub = e.Subject
		}
	}
	var r cache.Revocation
	switch {
	case d.SHA256 != "":
		hash, err := cache.ParseTokenHash(d.SHA256)
		if err != nil {
			return r, fmt.Errorf("%w: sha256 is %w", stream.ErrReject, err)
		}
		r = cache.RevokedToken(hash)
	case d.JTI != "":
		r = cache.RevokedJTI(d.JTI)
	case d.Sub != "":
		r = cache.RevokedSub(d.Sub)
	default:
		return r, fmt.Errorf("%w: %s names neither sha256, jti nor sub", stream.ErrReject, e.Type)
	}
	r.At, r.Until = happened(e), expires
	return r, nil
}

// readSession reads the data of an event. An end is rounded up to the next second, so
// that no token outlives its revocation.
func readSession(e event.Event) (d sessionData, expires time.Time, err error) {
	if len(e.Data) > 0 {
		if err := json.Unmarshal(e.Data, &d); err != nil {
			return d, expires, fmt.Errorf("%w: the data is no object with sha256, jti, sub and expires_at", stream.ErrReject)
		}
	}
	if len(d.Expires) == 0 || string(d.Expires) == "null" {
		return d, expires, nil
	}
	var seconds float64
	if json.Unmarshal(d.Expires, &seconds) == nil && seconds > 0 && seconds < 1e11 {
		return d, time.Unix(int64(seconds)+1, 0), nil
	}
	if json.Unmarshal(d.Expires, &expires) != nil || expires.IsZero() {
		return d, expires, fmt.Errorf("%w: expires_at is neither a time of RFC 3339 nor seconds since 1970", stream.ErrReject)
	}
	return d, expires.Add(time.Second), nil
}

// happened is when an event says that it happened, but not later than now: one from
// the future would keep out tokens that are yet to be issued.
func happened(e event.Event) time.Time {
	now := time.Now()
	if e.Time.IsZero() || e.Time.After(now) {
		return now
	}
	return e.Time
}
