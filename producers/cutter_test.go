package producers

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"testing"
)

// cutter passes bytes on to Redis and back until it sees a text on its way there:
// Redis gets the whole of it, and its reply never arrives.
type cutter struct {
	listener net.Listener
	port     int
	group    sync.WaitGroup

	mu    sync.Mutex
	text  []byte
	count int
	open  map[net.Conn]bool
}

func newCutter(t *testing.T, port int) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, port: port, open: map[net.Conn]bool{}}
	c.group.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			c.group.Go(func() { c.pass(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.mu.Lock()
		for conn := range c.open {
			conn.Close()
		}
		c.mu.Unlock()
		c.group.Wait()
	})
	return c
}

func (c *cutter) addr() string { return c.listener.Addr().String() }

func (c *cutter) cutAfter(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = []byte(text)
}

func (c *cutter) cuts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// seen reports whether the text passes, once.
func (c *cutter) seen(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.text == nil || !bytes.Contains(b, c.text) {
		return false
	}
	c.text = nil
	c.count++
	return true
}

func (c *cutter) track(conn net.Conn, open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if open {
		c.open[conn] = true
	} else {
		delete(c.open, conn)
		conn.Close()
	}
}

// pass serves one connection; requests and replies take turns, as they do for a
// script. A request of the size that the tests write comes in one piece.
func (c *cutter) pass(client net.Conn) {
	c.track(client, true)
	defer c.track(client, false)
	server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.port))
	if err != nil {
		return
	}
	c.track(server, true)
	defer c.track(server, false)
	cut := make(chan struct{})
	c.group.Go(func() {
		defer client.Close()
		buffer := make([]byte, 64<<10)
		for {
			n, err := server.Read(buffer)
			if err != nil {
				return
			}
			select {
			case <-cut:
				return // Redis has done it; nobody hears
			default:
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		if c.seen(buffer[:n]) {
			close(cut)
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}
