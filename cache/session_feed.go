package cache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// How a feed makes sure of its subscription: it asks for a sign of life each
// askAlive, and what was heard counts for feedTrust after the question was asked. A
// connection that falls silent is so found out in feedTrust at most.
const (
	askAlive  = time.Second
	feedTrust = 3 * time.Second
)

// Revocations is this process's one subscription to what is revoked, for those who
// remember tokens.
type Revocations struct {
	store *Store
	heard func(Revocation)
	anew  func()
	began time.Time
	alive atomic.Int64 // the last question that was answered, in nanoseconds since began; 0: none
	last  atomic.Int64 // alive as it was when the subscription was lost
}

// NewRevocations makes a feed that calls heard with each revocation, and anew
// whenever it begins to hear, since it may have missed some until then. They are
// called one at a time, by Run.
func (s *Store) NewRevocations(heard func(Revocation), anew func()) *Revocations {
	return &Revocations{store: s, heard: heard, anew: anew, began: time.Now()}
}

// Hears reports whether every revocation up to feedTrust ago has been heard, as far
// as it was announced, and normally all but those of the last milliseconds. Where it
// does not, ask Redis.
func (r *Revocations) Hears() bool {
	alive := r.alive.Load()
	return alive != 0 && time.Since(r.began)-time.Duration(alive) < feedTrust
}

// LastHeard returns when the last question was asked that was answered; zero: none was.
func (r *Revocations) LastHeard() time.Time {
	last := max(r.alive.Load(), r.last.Load())
	if last == 0 {
		return time.Time{}
	}
	return r.began.Add(time.Duration(last))
}

// Run listens until the context ends, subscribing again whenever the connection is
// lost. Call it once.
func (r *Revocations) Run(ctx context.Context) error {
	return again(ctx, func(ctx context.Context) (heard bool) {
		lost := r.listen(ctx)
		alive := r.alive.Load()
		r.last.Store(max(alive, r.last.Load()))
		r.alive.Store(0)
		if alive != 0 && ctx.Err() == nil {
			r.store.log.Warn().Err(lost).Msg("lost the subscription to revocations; each token is looked up")
		}
		return alive != 0
	})
}

// listen subscribes and delivers until the connection fails or the context ends.
func (r *Revocations) listen(ctx context.Context) error {
	asked := time.Now()
	sub := r.store.client.Subscribe(ctx, r.store.keys.revoked())
	// A blocked receive does not see its context end, so that closes under it.
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer func() {
		stop()
		_ = sub.Close() // the connection is given up, whatever it says
	}()
	waiting := true // for the answer to what was asked
	for {
		message, err := sub.ReceiveTimeout(ctx, askAlive-time.Since(asked)%askAlive)
		var timeout net.Error
		if err != nil && (!errors.As(err, &timeout) || !timeout.Timeout()) {
			return fmt.Errorf("receive: %w", err)
		}
		switch m := message.(type) {
		case *redis.Subscription:
			r.anew()
			waiting = false
			r.live(asked)
			r.store.log.Info().Msg("subscribed to revocations")
		case *redis.Pong:
			waiting = false
			r.live(asked)
		case *redis.Message:
			r.deliver(m.Payload)
		}
		switch since := time.Since(asked); {
		case waiting && since >= feedTrust:
			return errors.New("no sign of life")
		case !waiting && since >= askAlive:
			asked, waiting = time.Now(), true
			if err := sub.Ping(ctx); err != nil {
				return fmt.Errorf("ping: %w", err)
			}
		}
	}
}

// live notes that what was asked at that time has been answered: all that was
// announced before has come.
func (r *Revocations) live(asked time.Time) { r.alive.Store(max(int64(asked.Sub(r.began)), 1)) }

func (r *Revocations) deliver(payload string) {
	revocation, err := decodeRevocation(payload)
	if err != nil {
		// It means something to a newer release: look everything up again.
		r.store.log.Debug().Err(err).Msg("revocation not understood")
		r.anew()
		return
	}
	r.heard(revocation)
}
