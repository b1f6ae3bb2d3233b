package cache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// A subscription is asked for a sign of life when it has been silent for
// quietFor, and given up when none comes in the same time again. After a loss
// the next attempt comes after firstPause, then ever later up to lastPause.
const (
	quietFor   = 2 * time.Second
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// Run listens for announcements until the context ends, subscribing again
// whenever the connection is lost. Call it once.
func (w *Waiters) Run(ctx context.Context) error {
	return again(ctx, func(ctx context.Context) (heard bool) {
		lost := w.listen(ctx)
		heard = w.setSubscribed(false)
		if heard && ctx.Err() == nil {
			w.store.log.Warn().Err(lost).Msg("lost the subscription to announcements")
		}
		return heard
	})
}

// setSubscribed notes the state and returns what it was.
func (w *Waiters) setSubscribed(now bool) (before bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, w.subscribed = w.subscribed, now
	if now && !before {
		close(w.begins)
		w.begins = make(chan struct{})
	}
	return before
}

// listen subscribes and delivers until the connection fails or the context ends.
func (w *Waiters) listen(ctx context.Context) error {
	sub := w.store.client.Subscribe(ctx, w.store.keys.filled())
	return hear(ctx, sub, func(message any) {
		switch m := message.(type) {
		case *redis.Subscription:
			if !w.setSubscribed(true) {
				w.store.log.Info().Msg("subscribed to announcements")
			}
		case *redis.Message:
			if err := w.deliver(m.Payload); err != nil {
				w.store.log.Debug().Err(err).Msg("announcement not understood")
			}
		}
	})
}

// again has listen called until the context ends: soon after it has returned, and ever
// later while it says that it was of no use.
func again(ctx context.Context, listen func(context.Context) (heard bool)) error {
	pause := firstPause
	for ctx.Err() == nil {
		if listen(ctx) {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
	return nil
}

// hear hands over what comes by a subscription until the connection fails or the context
// ends, and closes it.
func hear(ctx context.Context, sub *redis.PubSub, deliver func(message any)) error {
	// A blocked receive does not see its context end, so that closes under it.
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer func() {
		stop()
		_ = sub.Close() // the connection is given up, whatever it says
	}()
	silent := false
	for {
		message, err := sub.ReceiveTimeout(ctx, quietFor)
		var timeout net.Error
		switch {
		case err == nil:
			silent = false
			deliver(message)
		case errors.As(err, &timeout) && timeout.Timeout() && !silent:
			silent = true
			if err := sub.Ping(ctx); err != nil {
				return fmt.Errorf("ping: %w", err)
			}
		default:
			return fmt.Errorf("receive: %w", err)
		}
	}
}
