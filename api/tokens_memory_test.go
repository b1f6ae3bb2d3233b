package api

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"mythiccache/cache"
)

// good reports whether a token is remembered well enough to be let in by that alone.
func good(m *memory, text string, now time.Time) bool {
	v, kept := m.recall(cache.HashToken(text), now)
	return kept && now.Before(v.until)
}

// found is a token of user u that was found good.
func found(text string, issued time.Time) verified {
	return verified{caller: userCaller("u"), token: cache.Token{Hash: cache.HashToken(text), Sub: "u", JTI: text, Issued: issued}}
}

func TestMemoryOfTokens(t *testing.T) {
	now := time.Now()
	m := newMemory(0)
	remember := func(text string, lives time.Duration) {
		v := found(text, now)
		if lives != 0 {
			v.end = now.Add(lives)
		}
		m.remember(v, now, m.mark())
	}
	wants := func(text string, at time.Time, want bool) {
		t.Helper()
		if good(m, text, at) != want {
			t.Errorf("%q is good after %s: %t", text, at.Sub(now), !want)
		}
	}
	remember("a", 0)
	remember("short", time.Second)
	remember("long", 24*time.Hour)
	if got, ok := m.recall(cache.HashToken("a"), now); !ok || got.caller.user != "u" {
		t.Error("a token is not remembered")
	}
	for text, lives := range map[string]time.Duration{"a": maxRemembered, "short": time.Second, "long": maxRemembered} {
		wants(text, now.Add(lives-1), true)
		wants(text, now.Add(lives), false)
	}
	mark := m.mark() // Redis is asked, and something is revoked before the answer is there
	m.revoke(cache.RevokedJTI("b"))
	m.remember(found("b", now), now, mark)
	wants("b", now, false)
	wants("a", now, true) // whom another's revocation does not concern
	m.forget(cache.HashToken("a"))
	wants("a", now, false)
	remember("a", 0)
	m.lapse(now)
	wants("a", now, false)
	if _, kept := m.recall(cache.HashToken("a"), now); !kept {
		t.Error("what is to be looked up again was forgotten")
	}
	remember("a", 0)
	wants("a", now, true)
	m.empty()
	if _, kept := m.recall(cache.HashToken("a"), now); kept {
		t.Error("it was not forgotten")
	}
}

// Strangers show tokens that nobody knows, as fast as they like. What is looked up
// meanwhile is remembered all the same.
func TestStrangersDoNotSwitchTheMemoryOff(t *testing.T) {
	now := time.Now()
	m := newMemory(0)
	mark := m.mark()
	m.forget(cache.HashToken("a stranger's"))
	m.remember(found("a", now), now, mark)
	if !good(m, "a", now) {
		t.Error("a token is not remembered since somebody showed another that is not known")
	}
	mark = m.mark()
	m.forget(cache.HashToken("a"))
	m.remember(found("a", now), now, mark) // what was asked for before may be over
	if good(m, "a", now) {
		t.Error("a token is remembered that was forgotten while it was looked up")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	now := time.Now()
	m := newMemory(0)
	m.remember(found("old", now), now, m.mark())
	for i := range 3 * remembered {
		text := strconv.Itoa(i)
		m.remember(found(text, now), now, m.mark())
		if i%2 == 0 { // what was forgotten counts, since its names are still there
			m.forget(cache.HashToken(text))
		}
	}
	for what, n := range map[string]int{
		"tokens": len(m.new.tokens) + len(m.old.tokens), "names": len(m.new.names) + len(m.old.names) - 2, "of one name": len(m.new.names["sub:u"]) + len(m.old.names["sub:u"]),
	} {
		if n > 2*remembered || n < remembered/2 {
			t.Errorf("%s: %d", what, n)
		}
	}
	if _, kept := m.recall(cache.HashToken("old"), now); kept {
		t.Error("a token that nobody showed for long is still remembered")
	}
	r := cache.RevokedSub("u")
	r.At = now
	m.revoke(r)
	if n := len(m.new.tokens) + len(m.old.tokens); n != 0 {
		t.Errorf("%d tokens of a user are remembered who was revoked", n)
	}
	// While it is not full, each generation lasts for a time, and what is used stays.
	for what, c := range map[string]struct {
		while, each time.Duration
		kept        bool
	}{
		"used":               {0, time.Minute, true},
		"not used":           {0, 20 * time.Minute, false},
		"used while away":    {time.Hour, 20 * time.Minute, true},
		"not used for hours": {time.Hour, 3 * time.Hour, false},
	} {
		m := newMemory(c.while)
		m.remember(found("a", now), now, m.mark())
		at, kept := now, true
		for i := range 20 {
			for range 2 {
				at = at.Add(c.each / 2)
				m.remember(found(strconv.Itoa(i), now), at, m.mark())
			}
			_, now := m.recall(cache.HashToken("a"), at)
			kept = kept && now
		}
		if kept != c.kept {
			t.Errorf("%s: kept is %t", what, kept)
		}
	}
}

// A thousand revocations of each kind look at the tokens that they concern, and at no
// others: the memory is full, and every request of the process waits for it.
func TestManyRevocationsHoldNobodyUp(t *testing.T) {
	now := time.Now()
	m := newMemory(0)
	token := func(i int) verified {
		v := found(fmt.Sprint("token ", i), now)
		v.token.Twin, v.token.Sub = cache.HashToken(fmt.Sprint("twin ", i)), fmt.Sprint("user ", i)
		return v
	}
	for i := range 2 * remembered {
		m.remember(token(i), now, m.mark())
	}
	if n := len(m.new.tokens) + len(m.old.tokens); n != 2*remembered {
		t.Fatalf("%d tokens are remembered", n)
	}
	const many = 1000
	looked := 0
	for i := range many {
		for place, r := range []cache.Revocation{
			cache.RevokedToken(token(i).token.Hash), cache.RevokedToken(token(many + i).token.Twin),
			cache.RevokedJTI(token(2*many + i).token.JTI), cache.RevokedSub(token(3*many + i).token.Sub),
			cache.RevokedToken(cache.HashToken(fmt.Sprint("nobody ", i))), cache.RevokedJTI(fmt.Sprint("nobody ", i)), cache.RevokedSub(fmt.Sprint("nobody ", i)),
		} {
			r.At = now
			looked += m.revoke(r)
			if place < 4 && good(m, fmt.Sprint("token ", place*many+i), now) {
				t.Fatalf("%+v, and its token is good", r)
			}
		}
	}
	if looked != 4*many {
		t.Errorf("%d tokens were looked at, and %d were revoked", looked, 4*many)
	}
	if n := len(m.new.tokens) + len(m.old.tokens); n != 2*remembered-4*many {
		t.Errorf("%d tokens are left", n)
	}
}

// The memory says of revocations what Redis says, which goes by each of a token's names.
func TestMemoryKeepsWhatWasIssuedSince(t *testing.T) {
	now := time.Now()
	m := newMemory(0)
	for i := range 4 {
		m.remember(found(strconv.Itoa(i), now.Add(time.Duration(i)*time.Second)), now, m.mark())
	}
	for at := range 4 {
		r := cache.RevokedSub("u")
		r.At = now.Add(time.Duration(at) * time.Second)
		m.revoke(r)
		for i := range 4 {
			if good(m, strconv.Itoa(i), now) != (i > at) {
				t.Errorf("issued after %d s, revoked at %d s: good is %t", i, at, i <= at)
			}
		}
	}
}

// TestOutlasting has Redis away from a moment on, for as long as copies are served.
func TestOutlasting(t *testing.T) {
	now := time.Now()
	at := func(minutes float64) time.Time { return now.Add(time.Duration(minutes * float64(time.Minute))) }
	const while = 5 * time.Minute
	for what, c := range map[string]struct {
		until, end float64 // in minutes; an end of 0 is none
		now        float64
		want       bool
	}{
		"good when Redis went":               {until: 1, now: 2, want: true},
		"good a moment before":               {until: -4.9, now: 2, want: true},
		"good a while before":                {until: -5, now: 2, want: false},
		"away for long":                      {until: 1, now: 4.9, want: true},
		"away for as long as there are any":  {until: 1, now: 5, want: false},
		"before its end":                     {until: 1, end: 2.1, now: 2, want: true},
		"at its end":                         {until: 1, end: 2, now: 2, want: false},
		"ended long ago, by another's clock": {until: 1, end: -1, now: 2, want: false},
	} {
		v := verified{until: at(c.until)}
		if c.end != 0 {
			v.end = at(c.end)
		}
		if v.outlasts(now, while, at(c.now)) != c.want {
			t.Errorf("%s: %t", what, !c.want)
		}
	}
	if (verified{until: now}).outlasts(time.Time{}, 0, now) {
		t.Error("where nothing is served as stale, somebody is let in for that")
	}
}
