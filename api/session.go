package api

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/cache"
)

// doorkeeper says whom a token lets in. A token that it has seen is remembered, and
// then costs neither a signature check nor a look into Redis.
//
// What is revoked is out at once. That means, in an API that hears of revocations, from
// the moment when the announcement has come, which is a round trip after the worker
// has applied the event. In one whose subscription is lost, no token is let in without
// a look into Redis; a connection that falls silent without closing is found out in
// three seconds. Where Redis does not answer the look in a moment (lookPatience), a token
// that was good a while ago (maxRemembered) still is: it reads nothing but the last good
// copies of this process, and whatever Redis has within a second (lookAgain) of its
// return, since until then nobody but one caller looks. A token that was never seen is
// answered with 503.
type doorkeeper struct {
	store  *cache.Store
	verify func(ctx context.Context, token string) (verified, error) // nil: tokens are opaque
	memory *memory
	feed   *cache.Revocations
	silent *silence // Redis, when asked
	touch  *touches
	away   func(ctx context.Context, err error) // told when Redis does not answer
}

func newDoorkeeper(store *cache.Store, verify func(context.Context, string) (verified, error), ttl time.Duration, log zerolog.Logger) *doorkeeper {
	d := &doorkeeper{store: store, verify: verify, memory: newMemory(), silent: newSilence(), away: func(context.Context, error) {}}
	d.feed = store.NewRevocations(d.memory.revoke, d.memory.empty)
	if verify == nil {
		d.touch = &touches{store: store, ttl: ttl, log: log}
	}
	return d
}

// caller returns whose token it is. Its errors are problems.
func (d *doorkeeper) caller(ctx context.Context, token string) (caller, error) {
	if len(token) > maxToken {
		return caller{}, unauthorized("invalid_token", "the token is too long")
	}
	now := time.Now()
	hash := cache.HashToken(token)
	v, known := d.memory.recall(hash, now)
	if known && d.feed.Hears() {
		d.use(v, now)
		return v.caller, nil
	}
	if known && !d.silent.asks(now) {
		return v.caller, nil
	}
	mark := d.memory.mark()
	if !known && d.verify != nil {
		var err error
		if v, err = d.verify(ctx, token); err != nil {
			return caller{}, err
		}
	}
	found, good, err := d.ask(ctx, hash, v, known)
	switch {
	case err != nil && known:
		return v.caller, nil
	case err != nil:
		return caller{}, problem(kindCacheAway, "Redis does not answer; whether the token was revoked cannot be said without it").later(time.Second)
	case !good && d.verify != nil:
		d.memory.forget(hash)
		return caller{}, unauthorized("invalid_token", "the token has been revoked")
	case !good:
		d.memory.forget(hash)
		return caller{}, unauthorized("invalid_token", "the token is not known, or not any more")
	}
	if !known {
		d.memory.remember(found, now, mark)
	}
	d.use(found, now)
	return found.caller, nil
}

// ask looks a token up, for as long as who shows it can wait: who is known needs no
// answer.
func (d *doorkeeper) ask(ctx context.Context, hash cache.TokenHash, v verified, known bool) (found verified, good bool, err error) {
	patience := redisTimeout
	if known {
		patience = lookPatience
	}
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, good, err = d.look(asked, hash, v)
	if err == nil || ctx.Err() == nil { // of a client that hung up, nothing is learnt
		d.silent.heard(err == nil)
	}
	if err != nil {
		d.away(ctx, err)
	}
	return found, good, err
}

// look asks Redis about a token that was verified, or whose an opaque one is.
func (d *doorkeeper) look(ctx context.Context, hash cache.TokenHash, v verified) (found verified, good bool, err error) {
	if d.verify != nil {
		revoked, err := d.store.Revoked(ctx, v.token)
		return v, !revoked, err
	}
	session, ok, err := d.store.Session(ctx, hash)
	return verified{
		caller: userCaller(session.Sub), until: session.Expires, expires: session.Expires,
		token: cache.Token{Hash: hash, Sub: session.Sub, Issued: session.Created},
	}, ok, err
}

// use notes that a session is used.
func (d *doorkeeper) use(v verified, now time.Time) {
	if d.touch == nil || !d.memory.used(v.token.Hash, now, d.touch.every()) {
		return
	}
	d.touch.add(cache.Session{Hash: v.token.Hash, Sub: v.token.Sub, Created: v.token.Issued, Expires: v.expires})
}

// run hears of revocations and writes down what is used until the context ends.
func (d *doorkeeper) run(ctx context.Context) error {
	var group sync.WaitGroup
	if d.touch != nil {
		group.Go(func() { d.touch.run(ctx) })
	}
	err := d.feed.Run(ctx)
	group.Wait()
	return err
}

// How often the uses of sessions are written down, all in one round trip that no
// request waits for, and how many may gather.
const (
	touchEvery = time.Second
	maxTouches = 16384
)

// touches are sessions that were used. Each is written down once a minute, so that it
// lives a minute less after its last use than it might.
type touches struct {
	store *cache.Store
	ttl   time.Duration
	log   zerolog.Logger

	mu   sync.Mutex
	used []cache.Session
}

// every returns how often a session's use is written down.
func (t *touches) every() time.Duration { return min(time.Minute, t.ttl/4) }

func (t *touches) add(s cache.Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.used) < maxTouches {
		t.used = append(t.used, s)
	}
}

// run writes down what gathers until the context ends, and then what is left.
func (t *touches) run(ctx context.Context) {
	tick := time.NewTicker(touchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			t.write(context.WithoutCancel(ctx))
			return
		case <-tick.C:
			t.write(ctx)
		}
	}
}

func (t *touches) write(ctx context.Context) {
	t.mu.Lock()
	used := t.used
	t.used = nil
	t.mu.Unlock()
	if len(used) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	if err := t.store.TouchSessions(ctx, used, t.ttl); err != nil {
		t.log.Debug().Err(err).Int("sessions", len(used)).Msg("the use of sessions was not written down")
	}
}
