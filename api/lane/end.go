package lane

import "context"

// state is what the lane does with a connection, and whether it goes on.
type state int

const (
	open      state = iota // it waits, or leaves all to net/http
	answering              // it is about to answer, or does
	closing                // the same, and the connection is closed when that is out
	closed
)

// begin begins an answer, unless the connection is closed.
func (c *conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open {
		return false
	}
	c.state = answering
	return true
}

// last reports whether the connection is closed after the answer that is under way.
func (c *conn) last() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == closing
}

// end ends an answer, and with it the connection where that was to be closed.
func (c *conn) end() (over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == answering {
		c.state = open
		return false
	}
	c.state = closed
	_ = c.Conn.Close() // who wanted that has gone on
	c.lane.gone(c)
	return true
}

// Close closes the connection: at once, or if an answer is under way, after that. It
// does not wait, since a server closes its idle connections one after the other.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case answering:
		c.state = closing
		c.lane.leave(c)
		return nil
	case closing:
		return nil
	default:
		c.state = closed
		return c.Conn.Close()
	}
}

// leave notes a connection that is closed when its answer is out.
func (l *Lane) leave(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaving[c] = struct{}{}
}

// gone notes that it is closed.
func (l *Lane) gone(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.leaving, c)
	if len(l.leaving) > 0 {
		return
	}
	select {
	case l.left <- struct{}{}:
	default:
	}
}

// Wait is for after the server's Shutdown, which takes the lane's connections for idle
// ones: it waits until the answers are out that were under way on them. When the
// context ends, those that are not are cut off.
func (l *Lane) Wait(ctx context.Context) error {
	for {
		l.mu.Lock()
		left := len(l.leaving)
		l.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-l.left:
		case <-ctx.Done():
			l.cut()
			return ctx.Err()
		}
	}
}

// cut closes the connections whose answers are still under way, so that these fail.
func (l *Lane) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.leaving {
		_ = c.Conn.Close() // it was given up
	}
}
