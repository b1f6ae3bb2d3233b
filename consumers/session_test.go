package consumers

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"mythiccache/cache"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// aboutSession is an event about a session, an hour old.
func aboutSession(kind, subject, data string) event.Event {
	return event.Event{ID: "e", Type: kind, Source: "app", Subject: subject, Time: time.Now().Add(-time.Hour), Data: json.RawMessage(data)}
}

func TestSessionsComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	s := NewSessions(w.store, SessionsOptions{TTL: 2 * time.Hour})
	hash := cache.HashToken
	data := func(token, more string) string { return `{"sha256":"` + hash(token).String() + `"` + more + `}` }
	wants := func(token, sub string) {
		t.Helper()
		got, ok, err := w.store.Session(w.ctx, hash(token))
		if err != nil || ok != (sub != "") || got.Sub != sub {
			t.Errorf("the session of %q is %+v, %t, %v; it is to be %q's", token, got, ok, err, sub)
		}
	}
	seconds := time.Now().Add(time.Minute).Unix()
	created := messages(
		aboutSession(event.SessionCreated, "", data("a", `,"sub":"user_1"`)),
		aboutSession(event.SessionCreated, hash("b").String(), `{"sub":"user_2","expires_at":"`+time.Now().Add(time.Hour).Format(time.RFC3339)+`"}`),
		aboutSession(event.SessionCreated, "", `{"sha256":"`+strings.ToUpper(hash("c").String())+`","sub":"user_2","expires_at":`+time.Unix(seconds, 0).Format("20060102")+`}`), // in 1970
		aboutSession(event.SessionCreated, "", data("d", `,"sub":"user_3","expires_at":null,"device":"phone"`)),
	)
	revoked := messages(
		aboutSession(event.SessionRevoked, "", data("a", "")),
		aboutSession(event.SessionRevoked, "user_3", ""),
	)
	w.ends(s.Handle(w.ctx, created), nil, nil, nil, nil)
	wants("a", "user_1")
	wants("b", "user_2")
	wants("c", "")
	wants("d", "user_3")
	for range 2 { // late, and again
		w.ends(s.Handle(w.ctx, append(revoked, created...)), nil, nil, nil, nil, nil, nil)
		wants("a", "")
		wants("b", "user_2")
		wants("d", "")
	}
	w.ends(s.Handle(w.ctx, messages(aboutSession(event.SessionRevoked, hash("b").String(), `{}`))), nil)
	wants("b", "")
	w.ends(s.Handle(w.ctx, messages(aboutSession(event.SessionRevoked, "", `{"jti":"j","expires_at":`+time.Now().Add(time.Hour).Format(`"2006-01-02T15:04:05Z07:00"`)+`}`))), nil)
	if out, err := w.store.Revoked(w.ctx, cache.Token{JTI: "j"}); err != nil || !out {
		t.Errorf("the jti is good: %v", err)
	}
	// One from the future is of now: it must not keep out who comes later.
	future := aboutSession(event.SessionRevoked, "user_9", "")
	future.Time = time.Now().Add(24 * time.Hour)
	w.ends(s.Handle(w.ctx, messages(future)), nil)
	if out, err := w.store.Revoked(w.ctx, cache.Token{Sub: "user_9", Issued: time.Now().Add(time.Minute)}); err != nil || out {
		t.Errorf("who comes in a minute is out: %v", err)
	}
}

func TestSessionsThatMeanNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	hash := cache.HashToken("a").String()
	var rest []string
	s := NewSessions(w.store, SessionsOptions{Rest: func(_ context.Context, messages []*message.Message) []error {
		errs := make([]error, len(messages))
		for i, m := range messages {
			e, err := stream.EventOf(m)
			if err != nil {
				t.Error(err)
			}
			rest = append(rest, e.Type)
			if e.Subject == "bad" {
				errs[i] = stream.ErrReject
			}
		}
		return errs
	}})
	for _, e := range []event.Event{
		aboutSession(event.SessionCreated, "", ""),
		aboutSession(event.SessionCreated, "", `{"sha256":"`+hash+`"}`),
		aboutSession(event.SessionCreated, "", `{"sha256":"`+hash+`","sub":"`+strings.Repeat("x", 513)+`"}`),
		aboutSession(event.SessionCreated, "", `{"sha256":"`+hash[1:]+`","sub":"u"}`),
		aboutSession(event.SessionCreated, "", `{"sha256":"`+hash+`00","sub":"u"}`),
		aboutSession(event.SessionCreated, "", `{"sha256":"`+hash+`","sub":"u","expires_at":"soon"}`),
		aboutSession(event.SessionCreated, "", `{"sha256":"`+hash+`","sub":7}`),
		aboutSession(event.SessionRevoked, "", ""),
		aboutSession(event.SessionRevoked, "", `{}`),
		aboutSession(event.SessionRevoked, "", `[]`),
		aboutSession(event.SessionRevoked, "", `{"sha256":"x"}`),
		aboutSession(event.SessionRevoked, "", `{"sub":"u","expires_at":-1}`),
	} {
		w.ends(s.Handle(w.ctx, messages(e)), stream.ErrReject)
	}
	// A table named session has its events in the same topic.
	row := event.Event{ID: "e", Type: "session.changed", Subject: "1", View: "thing"}
	bad := row
	bad.Subject = "bad"
	w.ends(s.Handle(w.ctx, messages(row, aboutSession(event.SessionRevoked, "u", ""), bad)), nil, nil, stream.ErrReject)
	if len(rest) != 2 {
		t.Errorf("handed on: %q", rest)
	}
	w.redis.Stop()
	w.ends(s.Handle(w.ctx, messages(aboutSession(event.SessionRevoked, "u", ""), aboutSession(event.SessionCreated, "", `{"sha256":"`+hash+`","sub":"u"}`))), stream.ErrPause, stream.ErrPause)
}
