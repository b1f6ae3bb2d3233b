package lane

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Lane is what the connections of a server share.
type Lane struct {
	handler  http.Handler
	blank    *http.Request // what is the same in all requests
	turns    sync.Pool     // of *turn
	date     atomic.Pointer[stamp]
	answered atomic.Uint64

	mu      sync.Mutex
	leaving map[*conn]struct{} // closed while an answer was under way
	left    chan struct{}      // receives once none of them is left
}

// New makes a lane in front of a server whose handler that is.
func New(handler http.Handler) *Lane {
	blank := &http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody}
	return &Lane{
		handler: handler, blank: blank.WithContext(context.WithValue(context.Background(), inLane{}, true)),
		leaving: map[*conn]struct{}{}, left: make(chan struct{}, 1),
	}
}

// inLane is the key under which a context says that it is one of the lane's.
type inLane struct{}

// In reports whether a request with that context has come by a lane.
func In(ctx context.Context) bool { return ctx.Value(inLane{}) != nil }

// Answered returns how many requests were answered in the lane.
func (l *Lane) Answered() uint64 { return l.answered.Load() }

// Listen returns a listener whose connections go through the lane. A client has the
// time of write to take an answer; 0 bounds nothing. ConnState must be the server's.
func (l *Lane) Listen(on net.Listener, write time.Duration) net.Listener {
	return &listener{Listener: on, lane: l, write: write}
}

type listener struct {
	net.Listener
	lane  *Lane
	write time.Duration
}

// Accept waits for a connection.
func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: accepted, lane: l.lane, write: l.write}, nil
}

// ConnState is to be the server's: the lane learns from it when a connection rests.
func (*Lane) ConnState(on net.Conn, state http.ConnState) {
	if c, ours := on.(*conn); ours && state == http.StateIdle {
		c.rest()
	}
}

// stamp is a second as the header Date spells it.
type stamp struct {
	second int64
	text   string
}

// appendDate writes a time as the header Date has it.
func (l *Lane) appendDate(b []byte, now time.Time) []byte {
	known := l.date.Load()
	if second := now.Unix(); known == nil || known.second != second {
		known = &stamp{second: second, text: now.UTC().Format(http.TimeFormat)}
		l.date.Store(known)
	}
	return append(b, known.text...)
}
