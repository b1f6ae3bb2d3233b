package lane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// pipes is a listener in memory. What is written at once on one of its connections is
// read at once, as far as there is room, so that a test decides what comes together;
// and time is the bubble's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (*pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

// dial returns the client's end of a new connection.
func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// The times of the server under test.
const (
	headerTime = 5 * time.Second
	readTime   = 15 * time.Second
	writeTime  = 30 * time.Second
	idleTime   = 2 * time.Minute
)

// front is a server, with a lane or without.
type front struct {
	*pipes
	server *http.Server
	lane   *Lane // nil: none
	ended  chan error
}

// serve begins to serve. It must be stopped before the bubble ends.
func serve(handler http.Handler, withLane bool) *front {
	f := &front{pipes: newPipes(), ended: make(chan error, 1)}
	f.server = &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime,
		ErrorLog: log.New(io.Discard, "", 0),
	}
	l := net.Listener(f.pipes)
	if withLane {
		f.lane = New(handler)
		l, f.server.ConnState = f.lane.Listen(l, writeTime), f.lane.ConnState
	}
	go func() { f.ended <- f.server.Serve(l) }()
	return f
}

func (f *front) stop(t testing.TB) {
	t.Helper()
	if err := f.server.Close(); err != nil {
		t.Error(err)
	}
	<-f.ended
}

// echo tells what it was asked. It declines in the lane what begins with /declined,
// and answers in ways that are not the lane's what begins with /odd.
func echo(w http.ResponseWriter, r *http.Request) {
	if In(r.Context()) && strings.HasPrefix(r.URL.Path, "/declined") {
		return
	}
	var body []byte
	var err error
	if !strings.HasPrefix(r.URL.Path, "/unread") {
		body, err = io.ReadAll(r.Body)
	}
	said, _ := json.Marshal(map[string]any{
		"method": r.Method, "url": fmt.Sprintf("%#v", *r.URL), "uri": r.RequestURI, "proto": []any{r.Proto, r.ProtoMajor, r.ProtoMinor},
		"host": r.Host, "from": r.RemoteAddr, "header": r.Header, "length": r.ContentLength, "coding": r.TransferEncoding, "close": r.Close,
		"body": string(body), "error": fmt.Sprint(err),
	})
	h := w.Header()
	h["X-Lines"] = []string{"one", " two\r\nthree\n"}
	if strings.HasPrefix(r.URL.Path, "/same") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/stream"), strings.HasPrefix(r.URL.Path, "/odd/stream"):
		stream(w, r.URL.Path, said)
		return
	case strings.HasPrefix(r.URL.Path, "/odd/length"):
		h.Set("Content-Type", "text/plain")
	case strings.HasPrefix(r.URL.Path, "/odd/type"):
		h.Set("Content-Length", fmt.Sprint(len(said)))
	case strings.HasPrefix(r.URL.Path, "/odd/close"):
		h.Set("Connection", "close")
		fallthrough
	default:
		h.Set("Content-Type", "application/json")
		h.Set("Content-Length", fmt.Sprint(len(said)))
	}
	if strings.HasPrefix(r.URL.Path, "/missing") {
		w.WriteHeader(http.StatusNotFound)
	}
	if strings.HasPrefix(r.URL.Path, "/odd/short") {
		said = said[1:]
	}
	w.Write(said[:len(said)/2])
	w.Write(said[len(said)/2:])
}

// stream answers without a length, in the ways that the path names.
func stream(w http.ResponseWriter, path string, said []byte) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	write := func(flush bool, parts ...[]byte) {
		for _, part := range parts {
			w.Write(part)
			if flush {
				control.Flush()
			}
		}
	}
	half := len(said) / 2
	switch path {
	case "/stream/twice":
		write(true, said[:half], said[half:])
	case "/stream/long":
		write(true, bytes.Repeat(said, 1+4*gathered/len(said)), nil, said)
	case "/stream/nothing":
		control.Flush()
	case "/odd/stream/together":
		write(false, said[:half], said[half:])
		control.Flush()
	case "/odd/stream/late": // the second part is not flushed
		write(true, said[:half])
		write(false, said[half:])
	case "/odd/stream/never":
		write(false, said)
	case "/odd/stream/empty":
		w.WriteHeader(http.StatusOK)
	default:
		write(true, said)
	}
}

const (
	plainGet  = "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"
	plainPost = "POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd"
	lastGet   = "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
)

// hear collects what comes on a connection until it ends.
func hear(conn net.Conn) <-chan string {
	heard := make(chan string, 1)
	go func() {
		said, _ := io.ReadAll(conn) // however it ends
		heard <- string(said)
	}()
	return heard
}
