package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"
)

// dialAgainAfter is how soon a server is asked for a connection again, beside the
// question that it has not answered. A Redis that stands still takes connections until
// its queue is full, and hears of none after that; once it goes on, the kernel asks again
// one, three or seven seconds after it did first, which is too late for who waits.
const dialAgainAfter = 250 * time.Millisecond

// redisKeepAlive is go-redis's own, for a dialer of ours.
var redisKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3}

// eagerDialer dials Redis in that way, for so long at most.
func eagerDialer(most time.Duration, secure *tls.Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, most)
		defer cancel()
		conn, err := dialEagerly(ctx, network, address)
		if err != nil || secure == nil {
			return conn, err
		}
		config := secure
		if config.ServerName == "" {
			config = secure.Clone()
			config.ServerName, _, _ = net.SplitHostPort(address)
		}
		over := tls.Client(conn, config)
		if err := over.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return over, nil
	}
}

// dialEagerly asks until the first answer, whatever it is, or until the context ends.
func dialEagerly(ctx context.Context, network, address string) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer)
	ask := func() {
		conn, err := (&net.Dialer{KeepAliveConfig: redisKeepAlive}).DialContext(asking, network, address)
		select {
		case answers <- answer{conn, err}:
		case <-asking.Done():
			if err == nil {
				_ = conn.Close() // another was sooner
			}
		}
	}
	again := time.NewTicker(dialAgainAfter)
	defer again.Stop()
	for {
		go ask() // ends with the context
		select {
		case first := <-answers:
			return first.conn, first.err
		case <-again.C:
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: network, Err: ended(ctx)}
		}
	}
}

// ended says why a context has ended as a connection does.
func ended(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return ctx.Err()
}
