package lane

import (
	"net"
	"sync"
	"time"
)

// conn is a connection on which the lane may answer.
//
// It may do so only while nothing of a request is anywhere between the socket and the
// handlers: it could else take a part of one, such as a body, for a whole. That is so
// when all of this holds:
//
//  1. net/http has said that the connection is idle (ConnState);
//  2. it has set the deadline until which the connection may rest, and none since. The
//     next one it sets when it has seen the beginning of a request;
//  3. it reads into as much room as in the first read on the connection, when it had
//     nothing. Were anything left of what it was given since, there would be less.
//
// The first two are the order of things in net/http's conn.serve, which is not promised.
// Were it another one, the tests would say so, which send bodies that look like requests.
type conn struct {
	net.Conn
	lane  *Lane
	write time.Duration

	// Of the goroutine that serves the connection. Others look only while a handler
	// runs, when none of this changes.
	at         phase
	room       int           // of net/http's buffer when it is empty; 0: not known yet
	idle       time.Duration // how long the connection may rest; 0: for ever
	readUntil  time.Time
	writeUntil time.Time
	remote     string

	mu    sync.Mutex
	state state
}

// phase is what net/http does with a connection, as far as the lane can tell.
type phase int

const (
	busy    phase = iota // it has a request, or a part of one
	resting              // it has said that the connection is idle
	waiting              // and has set the deadline for that: what is read now begins a request
)

// rest is called when the connection is idle.
func (c *conn) rest() {
	c.at = resting
	c.writeUntil = time.Time{} // net/http has taken its own back
	if c.remote == "" {
		c.remote = c.RemoteAddr().String()
	}
}

// SetReadDeadline sets the deadline, and learns from it what net/http is about to do.
func (c *conn) SetReadDeadline(t time.Time) error {
	switch c.at {
	case busy:
	case resting:
		c.at, c.readUntil, c.idle = waiting, t, 0
		if !t.IsZero() {
			c.idle = time.Until(t)
		}
	case waiting:
		c.at = busy
	}
	return c.Conn.SetReadDeadline(t)
}

// Read answers the requests that it can, and returns what it cannot.
func (c *conn) Read(p []byte) (int, error) {
	if c.room == 0 {
		c.room = len(p)
	}
	if c.at == busy {
		return c.Conn.Read(p)
	}
	ours := c.at == waiting && len(p) == c.room
	var before lead
	for {
		n, err := c.Conn.Read(p)
		if ours && err == nil {
			post := p[0] == 'P'
			answered, broken := c.answer(p[:n])
			switch {
			case broken != nil:
				n, err = 0, broken
			case answered:
				before.follows(post)
				continue
			default:
				if n = before.pass(p[:n]); n == 0 {
					continue
				}
			}
		}
		c.at = busy
		return n, err
	}
}

// lead makes of line ends in front of a request what net/http would, had it read the
// requests before: behind a POST it passes over four of them at most (RFC 9112, 2.2), and
// else refuses the request. It does not know of those that the lane has answered.
type lead struct {
	answered bool // the request before, by the lane
	spare    int  // line ends that are passed over
}

// follows notes what the lane has answered.
func (l *lead) follows(post bool) {
	*l = lead{answered: true}
	if post {
		l.spare = 4
	}
}

// pass makes of what has come what net/http is to read, and returns how much that is.
func (l *lead) pass(p []byte) int {
	if !l.answered {
		return len(p)
	}
	at := 0
	for at < len(p) && l.spare > 0 && isLineEnd(p[at]) {
		at++
		l.spare--
	}
	n := copy(p, p[at:])
	if n > 0 && isLineEnd(p[0]) {
		p[0] = ' ' // it is no beginning either, and nobody passes over it
	}
	return n
}

func isLineEnd(c byte) bool { return c == '\r' || c == '\n' }

// answer answers a request if it can. After an error the connection is of no more use.
func (c *conn) answer(text []byte) (answered bool, err error) {
	head, body := cutHead(text)
	if head == nil {
		return false, nil
	}
	t := c.lane.turn()
	defer c.lane.done(t)
	if !t.parse(head, body, c.lane.blank) {
		return false, nil
	}
	if !c.begin() {
		return false, net.ErrClosed
	}
	defer func() {
		if c.end() {
			err = net.ErrClosed
		}
	}()
	t.conn, t.request.RemoteAddr = c, c.remote
	c.lane.handler.ServeHTTP(&t.answer, t.request)
	return t.finish()
}

// keep moves the deadlines as net/http would. To move one costs more than to look at
// the clock, so both are moved a little further than that, and then stand for a while.
func (c *conn) keep(now time.Time) error {
	if c.idle > 0 && c.readUntil.Sub(now) < c.idle {
		c.readUntil = now.Add(c.idle + c.idle/32)
		if err := c.Conn.SetReadDeadline(c.readUntil); err != nil {
			return err
		}
	}
	if c.write > 0 && c.writeUntil.Sub(now) < c.write {
		c.writeUntil = now.Add(c.write + c.write/32)
		return c.SetWriteDeadline(c.writeUntil)
	}
	return nil
}

// NetConn returns the connection itself, whose buffers can be set.
func (c *conn) NetConn() net.Conn { return c.Conn }

// CloseWrite says to the client that nothing more comes, where the connection can:
// net/http does so before it hangs up on somebody who is still sending.
func (c *conn) CloseWrite() error {
	for on := c.Conn; ; {
		switch half := on.(type) {
		case interface{ CloseWrite() error }:
			return half.CloseWrite()
		case interface{ NetConn() net.Conn }:
			on = half.NetConn()
		default:
			return nil
		}
	}
}
