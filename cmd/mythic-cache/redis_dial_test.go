package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

// TestARedisThatGoesOnIsReachedAtOnce has a Redis stand still until it takes no more
// connections, and dials meanwhile.
func TestARedisThatGoesOnIsReachedAtOnce(t *testing.T) {
	t.Parallel()
	redis := testserver.NewRedis(t, "--tcp-backlog", "2")
	address := "127.0.0.1:" + strconv.Itoa(redis.Port)
	if err := redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	for full := false; !full; {
		conn, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		if full = err != nil; !full {
			t.Cleanup(func() { conn.Close() })
		}
	}
	const most = 300 * time.Millisecond
	var timeout net.Error
	if _, err := eagerDialer(most, nil)(t.Context(), "tcp", address); !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("in time: %v", err)
	}
	given, cancel := context.WithCancel(t.Context())
	time.AfterFunc(most, cancel)
	if _, err := eagerDialer(time.Minute, nil)(given, "tcp", address); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}

	begun := time.Now()
	thawed := make(chan time.Time, 1)
	// The kernel asks again after one second, in vain, and next after three.
	time.AfterFunc(1200*time.Millisecond, func() {
		thawed <- time.Now()
		if err := redis.Thaw(); err != nil {
			t.Error(err)
		}
	})
	conn, err := eagerDialer(10*time.Second, nil)(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if late := time.Since(<-thawed); late > 1300*time.Millisecond {
		t.Errorf("reached %s after it went on, %s after it was asked first", late, time.Since(begun))
	}
}

// TestARefusalIsToldAtOnce asks where nobody is.
func TestARefusalIsToldAtOnce(t *testing.T) {
	t.Parallel()
	port, err := testserver.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err := eagerDialer(time.Minute, nil)(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil || time.Since(begun) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
}

// TestRedisIsDialedOverTLS by the name that was asked for, unless another is configured.
func TestRedisIsDialedOverTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.NotFoundHandler()) // its certificate is of 127.0.0.1 and example.com
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	trusting := server.Client().Transport.(*http.Transport).TLSClientConfig
	for name, good := range map[string]bool{"": true, "example.com": true, "example.org": false} {
		config := trusting.Clone()
		config.ServerName = name
		conn, err := eagerDialer(10*time.Second, config)(t.Context(), "tcp", address)
		if (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil {
			conn.Close()
		}
		if config.ServerName != name {
			t.Errorf("%q has become %q", name, config.ServerName)
		}
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	if _, err := eagerDialer(300*time.Millisecond, trusting)(t.Context(), "tcp", silent.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody shakes hands: %v", err)
	}
}
