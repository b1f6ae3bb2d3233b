package api

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/api/lane"
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
// that was good a while ago still is: it reads nothing but the last good copies of this
// process, and whatever Redis has within a second (lookAgain) of its return, since until
// then nobody but one caller looks. That ends with the token, with a revocation that was
// heard, and when Redis has been away for as long as copies are served. A token that was
// never seen is answered with 503.
//
// Looks wait in queues of bounded length, those about tokens that nobody has seen in one
// of their own: whoever makes tokens up keeps out nobody who is known. Who has no turn
// while Redis answers is told to come again, known or not.
type doorkeeper struct {
	store            *cache.Store
	verify           func(ctx context.Context, token string) (verified, error) // nil: tokens are opaque
	memory           *memory
	feed             *cache.Revocations
	silent           *silence // Redis, when asked
	known, strangers *queue   // of those who look
	touch            *touches
	away             func(ctx context.Context, err error) // told when Redis does not answer
	looked           func(good bool, err error)           // told of each look into Redis
}

func newDoorkeeper(store *cache.Store, verify func(context.Context, string) (verified, error), ttl time.Duration, log zerolog.Logger) *doorkeeper {
	d := &doorkeeper{store: store, verify: verify, memory: newMemory(store.StaleFor()), silent: newSilence(), away: func(context.Context, error) {}, looked: func(bool, error) {}}
	d.known, d.strangers = newQueue(), newQueue()
	d.feed = store.NewRevocations(func(r cache.Revocation) { d.memory.revoke(r) }, func() { d.memory.lapse(time.Now()) })
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
	v, kept := d.memory.recall(hash, now)
	known := kept && now.Before(v.until)
	if known && d.feed.Hears() {
		d.use(v, now)
		return v.caller, nil
	}
	if lane.In(ctx) {
		return caller{}, errNotAtOnce
	}
	trusted := known || kept && v.outlasts(d.answered(), d.store.StaleFor(), now)
	if trusted && !d.silent.asks(now) {
		d.use(v, now)
		return v.caller, nil
	}
	mark := d.memory.mark()
	if !known && d.verify != nil {
		var err error
		if v, err = d.verify(ctx, token); err != nil {
			return caller{}, err
		}
	}
	found, good, err := d.ask(ctx, hash, v, trusted)
	switch {
	case errors.Is(err, errCrowd): // Redis answers, and nobody has asked it about this one
		return caller{}, problem(kindBusy, "too many tokens wait to be looked up").later(time.Second)
	case err != nil && trusted:
		d.use(v, now)
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

// answered returns when Redis last answered, as far as this process knows.
func (d *doorkeeper) answered() time.Time {
	looked, heard := d.silent.answered(), d.feed.LastHeard()
	if heard.After(looked) {
		return heard
	}
	return looked
}

// ask looks a token up, for as long as who shows it can wait: who is trusted needs no
// answer.
func (d *doorkeeper) ask(ctx context.Context, hash cache.TokenHash, v verified, trusted bool) (found verified, good bool, err error) {
	patience, queue := redisTimeout, d.strangers
	if trusted {
		patience, queue = lookPatience, d.known
	}
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	if err := queue.enter(asked); err != nil {
		return verified{}, false, d.passed(err, began)
	}
	defer queue.leave()
	found, good, err = d.look(asked, hash, v)
	d.looked(good, err)
	if err == nil || ctx.Err() == nil { // of a client that hung up, nothing is learnt
		d.silent.heard(err == nil)
	}
	if err != nil {
		d.away(ctx, err)
	}
	return found, good, err
}

// passed says why somebody who began to wait at a time had no turn: because Redis does
// not answer, or because there is a crowd, which lets nobody in.
func (d *doorkeeper) passed(why error, began time.Time) error {
	if d.silent.away() || errors.Is(why, errTurn) && d.answered().Before(began) {
		return errNoAnswer
	}
	return errCrowd
}

// errNoAnswer says that Redis does not answer those who look.
var errNoAnswer = errors.New("redis does not answer")

// look asks Redis about a token that was verified, or whose an opaque one is.
func (d *doorkeeper) look(ctx context.Context, hash cache.TokenHash, v verified) (found verified, good bool, err error) {
	if d.verify != nil {
		revoked, err := d.store.Revoked(ctx, v.token)
		return v, !revoked, err
	}
	now := time.Now()
	session, ok, err := d.store.Session(ctx, hash)
	return verified{
		caller: userCaller(session.Sub), end: earlier(session.Expires, now.Add(d.touch.ttl)), expires: session.Expires,
		token: cache.Token{Hash: hash, Sub: session.Sub, Issued: session.Created},
	}, ok, err
}

// use notes that a session is used.
func (d *doorkeeper) use(v verified, now time.Time) {
	if d.touch == nil || !d.memory.used(v.token.Hash, now, d.touch.every(), d.touch.ttl) {
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
