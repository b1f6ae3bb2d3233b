package api

import (
	"errors"
	"net"
	"net/http"
	"os"
	"time"
)

// sink is where a stream goes.
type sink interface {
	send(text []byte, patience time.Duration) error
	hurry() // ends soon what is being sent
	close()
}

// inHurry is how long a client has to take what is on its way when its stream ends.
const inHurry = time.Second

// sendBuffer bounds what the kernel keeps for a client that does not read, in bytes:
// by itself it would keep megabytes for each.
const sendBuffer = 32 << 10

// takeOver sends the header of an answer without an end and returns where the rest
// goes. A connection of HTTP/1 is the stream's own from here on: what the server
// keeps for one would take 20 kB, and two goroutines. One of HTTP/2 stays the
// server's, and conn is nil.
func (x *exchange) takeOver() (out sink, conn net.Conn) {
	if x.request.ProtoMajor == 1 {
		// The end of the connection is the end of the answer.
		x.Header()["Transfer-Encoding"] = []string{"identity"}
	}
	x.WriteHeader(http.StatusOK)
	control := http.NewResponseController(x.ResponseWriter)
	conn, _, err := control.Hijack()
	if err != nil {
		return &answerSink{x: x, control: control}, nil
	}
	boundBuffer(conn)
	return connSink{conn}, conn
}

// boundBuffer finds the socket of a connection, however it is wrapped.
func boundBuffer(conn net.Conn) {
	for {
		switch c := conn.(type) {
		case interface{ SetWriteBuffer(bytes int) error }:
			_ = c.SetWriteBuffer(sendBuffer) // it is a wish
			return
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return
		}
	}
}

// connSink is a connection of the stream's own.
type connSink struct{ conn net.Conn }

func (c connSink) send(text []byte, patience time.Duration) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := c.conn.Write(text)
	return err
}

func (c connSink) hurry() { _ = c.conn.SetWriteDeadline(time.Now().Add(inHurry)) } // or it ends by its own

func (c connSink) close() { c.conn.Close() }

// answerSink is an answer of the server's.
type answerSink struct {
	x       *exchange
	control *http.ResponseController
}

func (a *answerSink) send(text []byte, patience time.Duration) error {
	if err := a.control.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := a.x.Write(text); err != nil {
		return err
	}
	if err := a.control.Flush(); err != nil {
		return err
	}
	return a.control.SetWriteDeadline(time.Time{})
}

func (a *answerSink) hurry() { _ = a.control.SetWriteDeadline(time.Now().Add(inHurry)) } // or it ends by its own

func (*answerSink) close() {} // the handler's return does

// endOf says why a stream has ended whose client could not be written to.
func endOf(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return endSlow
	}
	return endGone
}
