package streams

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// delay is a way to a server on which everything takes longer, and no less goes at
// a time: what toxiproxy, with its whole milliseconds, cannot say.
type delay struct {
	addr     string
	to       string
	each     time.Duration // one way
	listener net.Listener
	group    sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func newDelay(port int, each time.Duration) (*delay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	d := &delay{addr: listener.Addr().String(), to: fmt.Sprintf("127.0.0.1:%d", port), each: each, listener: listener}
	d.group.Go(d.accept)
	return d, nil
}

func (d *delay) accept() {
	for {
		near, err := d.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", d.to)
		if err != nil {
			near.Close()
			continue
		}
		d.mu.Lock()
		d.conns = append(d.conns, near, far)
		d.mu.Unlock()
		d.group.Go(func() { d.carry(far, near) })
		d.group.Go(func() { d.carry(near, far) })
	}
}

// piece is what came at one time.
type piece struct {
	bytes []byte
	due   time.Time
}

// carry brings each piece late, in a goroutine beside the one that reads, so that
// they are on their way together.
func (d *delay) carry(to io.WriteCloser, from io.Reader) {
	pieces := make(chan piece, 10_000)
	d.group.Go(func() {
		defer to.Close()
		for p := range pieces {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.bytes); err != nil {
				for range pieces { // until the reader notices
				}
				return
			}
		}
	})
	defer close(pieces)
	for {
		buffer := make([]byte, 64<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			pieces <- piece{buffer[:n], time.Now().Add(d.each)}
		}
		if err != nil {
			return
		}
	}
}

func (d *delay) close() error {
	errs := []error{d.listener.Close()}
	d.mu.Lock()
	for _, conn := range d.conns {
		if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	d.mu.Unlock()
	d.group.Wait()
	return errors.Join(errs...)
}
