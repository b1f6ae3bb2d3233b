package lane

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestManyRequestsOnOneConnection asks over TCP for as long as a busy client would.
func TestManyRequestsOnOneConnection(t *testing.T) {
	many := 100_000
	if raceDetector {
		many = 20_000
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"a":1}`
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Content-Length", "7")
		w.Write([]byte(body))
	})
	lane := New(handler)
	server := &http.Server{Handler: handler, ConnState: lane.ConnState, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime}
	served := make(chan error, 1)
	go func() { served <- server.Serve(lane.Listen(l, writeTime)) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	var answer []byte // as long as the first of the lane's, all of them are
	for i := range many {
		if _, err := io.WriteString(conn, plainGet); err != nil {
			t.Fatal(err)
		}
		if i < 2 || i == many-1 {
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			if said, err := io.ReadAll(r.Body); string(said) != body || err != nil {
				t.Fatalf("%d: %q %v", i, said, err)
			}
			answer = make([]byte, len("HTTP/1.1 200 OK\r\nDate: \r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n")+len(http.TimeFormat)+len(body))
			continue
		}
		if _, err := io.ReadFull(in, answer); err != nil || string(answer[:15]) != "HTTP/1.1 200 OK" || string(answer[len(answer)-len(body):]) != body {
			t.Fatalf("%d: %q %v", i, answer, err)
		}
	}
	if n := lane.Answered(); n < uint64(many)-10 {
		t.Errorf("the lane answered %d of %d", n, many)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != http.ErrServerClosed { //nolint:errorlint // nobody wraps it
		t.Error(err)
	}
	if said, err := io.ReadAll(in); len(said) > 0 || err != nil {
		t.Errorf("%q %v", said, err)
	}
}
