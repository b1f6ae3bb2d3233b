package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// nearLink is the connection over which Redis tells of the keys that are written:
// CLIENT TRACKING in its broadcasting form, for the prefixes of the views. That is one
// connection however many others read, and costs Redis no memory for what is read.
// It is subscribed to a channel on which nothing is said, since Redis bounds what it
// holds for a client that does not read if that is a subscriber.
type nearLink struct {
	store *Store
	near  *near

	mu    sync.Mutex
	runID string // of the Redis that the newest connection leads to
	tried uint64 // connections that were made
	apart int    // signs of life in a row while the store's connections led to another Redis
}

// A sign of life is asked for every pingEvery. The link is given up when none has come
// for aliveFor. The next attempt comes after redialAfter, each bounded by aliveFor.
const (
	pingEvery   = 200 * time.Millisecond
	redialAfter = 100 * time.Millisecond
	apartMost   = 4 // signs of life; the store may be about to connect again
)

// errApart says that what is read and what is heard of are in two servers: one of the
// connections has outlived a failover.
var errApart = errors.New("the near cache's link leads to another redis than is read")

// run keeps the link until the context ends. Its errors are those of configuration:
// without a link nothing is kept, and all else works.
func (l *nearLink) run(ctx context.Context) error {
	dialed, err := l.store.dial(l.onConnect)
	if err != nil {
		return fmt.Errorf("near cache: dial redis: %w", err)
	}
	defer dialed.Close()
	client, ok := dialed.(*redis.Client)
	if !ok {
		return fmt.Errorf("near cache: %T has no one connection that hears of all keys", dialed)
	}
	if err := client.RegisterPushNotificationHandler("invalidate", writtenHandler{l.near}, false); err != nil {
		return fmt.Errorf("near cache: %w", err)
	}
	said := ""
	for ctx.Err() == nil {
		lost := l.hold(ctx, client)
		was := l.near.era.Load() != nil
		l.near.lose()
		if ctx.Err() == nil && (was || lost.Error() != said) {
			said = lost.Error()
			l.store.log.Warn().Err(lost).Msg("the near cache has lost its link; nothing in it is fresh")
		}
		select {
		case <-ctx.Done():
		case <-time.After(redialAfter):
		}
	}
	return nil
}

// onConnect asks for the words of all keys. What comes before the connection's first
// sign of life is not heard, and need not be: nothing is kept yet.
func (l *nearLink) onConnect(ctx context.Context, conn *redis.Conn) error {
	l.near.lose() // go-redis may have connected again by itself
	about, err := conn.Do(ctx, "hello").Result()
	if err != nil {
		return fmt.Errorf("greet redis: %w", err)
	}
	if about, ok := about.(map[any]any); !ok || about["proto"] != int64(3) {
		return errors.New("the connection does not speak RESP3, so Redis cannot tell of written keys")
	}
	info, err := conn.Info(ctx, "server").Result()
	if err != nil {
		return fmt.Errorf("greet redis: %w", err)
	}
	runID, ok := runIDIn(info)
	if !ok {
		return errors.New("greet redis: INFO server has no run_id")
	}
	prefixes := []string{l.near.keys.view("")}
	for name := range l.near.views {
		if prefix := l.near.keys.prefix + name + ":"; prefix != prefixes[0] {
			prefixes = append(prefixes, prefix)
		}
	}
	if err := conn.ClientTrackingOn(ctx, &redis.ClientTrackingOptions{Bcast: true, Prefixes: prefixes}).Err(); err != nil {
		return fmt.Errorf("ask redis to tell of written keys: %w", err)
	}
	sent := time.Now()
	clock, err := conn.Time(ctx).Result()
	if err != nil {
		return fmt.Errorf("greet redis: %w", err)
	}
	// This is the newest connection, so it says where Redis is by now. What the store's
	// older ones bring from elsewhere is stale from here on, not fresh.
	l.store.meet(runID, clock, sent)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runID, l.apart = runID, 0
	l.tried++
	return nil
}

// hold makes a connection and listens until it is lost or the context ends.
func (l *nearLink) hold(ctx context.Context, client *redis.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bounded, done := context.WithTimeout(ctx, aliveFor)
	sub := client.Subscribe(bounded)
	err := sub.Subscribe(bounded, l.near.keys.prefix+"near")
	done()
	// A blocked receive does not see its context end, so that closes under it.
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer func() {
		stop()
		_ = sub.Close() // the connection is given up, whatever it says
	}()
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	connection := l.connection()
	var group sync.WaitGroup
	group.Go(func() { l.ping(ctx, sub) })
	defer func() { cancel(); group.Wait() }()
	for {
		message, err := sub.ReceiveTimeout(ctx, aliveFor)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if l.connection() != connection {
			return errors.New("connected again")
		}
		if pong, ok := message.(*redis.Pong); ok {
			if err := l.alive(ctx, pong); err != nil {
				return err
			}
		}
	}
}

func (l *nearLink) connection() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tried
}

// ping asks for signs of life. Each says when it was asked for.
func (l *nearLink) ping(ctx context.Context, sub *redis.PubSub) {
	every := time.NewTicker(pingEvery)
	defer every.Stop()
	for {
		asked := strconv.FormatInt(int64(time.Since(l.near.began)), 10)
		if err := sub.Ping(ctx, asked); err != nil {
			_ = sub.Close() // ends the receive
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

// alive notes a sign of life. The first one of a connection begins an era.
func (l *nearLink) alive(ctx context.Context, pong *redis.Pong) error {
	asked, err := strconv.ParseInt(pong.Payload, 10, 64)
	if err != nil {
		return fmt.Errorf("a sign of life that nobody asked for: %w", err)
	}
	l.near.heard(time.Duration(asked))
	if l.near.silent() >= aliveFor {
		return errors.New("the link is too slow")
	}
	// An era begins with empty hands: what is kept is given up only once others can be
	// had. The store's connections may come back a second after this one, since go-redis
	// looks that seldom for a server that is gone.
	if l.near.era.Load() == nil {
		bounded, done := context.WithTimeout(ctx, aliveFor)
		defer done()
		if err := l.store.client.Ping(bounded).Err(); err != nil {
			return fmt.Errorf("redis answers here, but not who reads: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store.RunID() == l.runID {
		l.apart = 0
	} else if l.apart++; l.apart >= apartMost {
		return errApart // the next connection leads where the store's newest does
	}
	if l.near.era.Load() == nil {
		l.near.open(l.runID)
		l.store.log.Info().Str("run_id", l.runID).Msg("the near cache hears of what is written")
	}
	return nil
}
