package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// timeouts of a connection, and how long Serve waits for requests in flight. A
// handler that waits or streams for longer moves its own deadlines.
type timeouts struct {
	header   time.Duration // from a request's first byte to the end of its header
	read     time.Duration // to the end of its body
	write    time.Duration // from the end of the header to that of the answer
	idle     time.Duration // between two requests
	shutdown time.Duration
}

func usualTimeouts() timeouts {
	return timeouts{header: 5 * time.Second, read: 15 * time.Second, write: 30 * time.Second, idle: 2 * time.Minute, shutdown: 10 * time.Second}
}

// maxHeader bounds request line and header, in bytes.
const maxHeader = 32 << 10

// Serve answers on a listener until the context ends, and returns once the
// requests in flight are done, or after ten seconds.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: s.timeouts.header,
		ReadTimeout:       s.timeouts.read,
		WriteTimeout:      s.timeouts.write,
		IdleTimeout:       s.timeouts.idle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(s.log.With().Str("level", "debug").Logger(), "", 0),
	}
	if s.o.MaxConns > 0 {
		l = limitConnections(l, s.o.MaxConns, s.log)
	}
	serve := func() error { return server.Serve(l) }
	if s.lane != nil {
		l, server.ConnState = s.lane.Listen(l, s.timeouts.write), s.lane.ConnState
	}
	if s.tls != nil {
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.tls.get}
		serve = func() error { return server.ServeTLS(l, "", "") }
	}
	served := make(chan error, 1)
	go func() { served <- serve() }()
	s.log.Info().Stringer("address", l.Addr()).Bool("tls", s.tls != nil).Msg("api is listening")
	select {
	case err := <-served:
		return fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeouts.shutdown)
	defer cancel()
	s.watches.stop() // these would not end by themselves
	err := server.Shutdown(bounded)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests were still in flight: %w", err), server.Close())
	}
	if s.lane != nil {
		err = errors.Join(err, s.lane.Wait(bounded))
	}
	err = errors.Join(err, s.watches.wait(bounded))
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve http: %w", ended))
	}
	s.refreshes.wait()
	s.misses.wait()
	if s.chat != nil {
		s.chat.waits.wait()
	}
	s.log.Info().Msg("api has stopped")
	return err
}

// limitedListener accepts no more connections than it has places. Those beyond wait
// in the kernel's queue, which is bounded too, until one ends or times out: with all
// descriptors in use the process could not even reach Redis again.
type limitedListener struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	close  func() error
	full   atomic.Bool // said to be, in the log
	log    zerolog.Logger
}

func limitConnections(l net.Listener, most int, logger zerolog.Logger) *limitedListener {
	limited := &limitedListener{Listener: l, places: make(chan struct{}, most), closed: make(chan struct{}), log: logger}
	limited.close = sync.OnceValue(func() error {
		close(limited.closed)
		return l.Close()
	})
	return limited
}

// Accept waits for a place, then for a connection.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	default:
		if !l.full.Swap(true) {
			l.log.Warn().Int("connections", cap(l.places)).Msg("no more connections are accepted until one ends")
		}
		select {
		case l.places <- struct{}{}:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		l.leave()
		return nil, err
	}
	return &placedConn{Conn: conn, leave: sync.OnceFunc(l.leave)}, nil
}

// leave gives a place back. Where a tenth of them is free again, that is logged; at one
// or two the log would say so with every connection of a flood.
func (l *limitedListener) leave() {
	<-l.places
	if l.full.Load() && len(l.places) <= cap(l.places)*9/10 && l.full.Swap(false) {
		l.log.Info().Msg("connections are accepted again")
	}
}

// Close stops accepting.
func (l *limitedListener) Close() error { return l.close() }

// placedConn gives its place back when it is closed.
type placedConn struct {
	net.Conn
	leave func()
}

// NetConn returns the connection itself, whose buffers can be set.
func (c *placedConn) NetConn() net.Conn { return c.Conn }

// Close closes the connection.
func (c *placedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
