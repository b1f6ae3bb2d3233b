package watch

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// crowd are all who watch. Its times are nanoseconds since it came together; 0: not
// yet.
type crowd struct {
	begun    time.Time
	written  []atomic.Int64 // when each change had been committed
	arrivals []atomic.Int64 // when it had come, perRun of each
	came     []atomic.Int32 // to how many

	mu    sync.Mutex
	conns []net.Conn
	group sync.WaitGroup
}

// newCrowd is one that so many changes will come to.
func newCrowd(changes int) *crowd {
	return &crowd{
		begun: time.Now(), written: make([]atomic.Int64, changes), arrivals: make([]atomic.Int64, changes*perRun), came: make([]atomic.Int32, changes),
	}
}

// joinAtOnce is how many open their streams at a time.
const joinAtOnce = 32

// join opens all streams and waits until each has its first event.
func (c *crowd) join(ctx context.Context, b *bed) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(joinAtOnce)
	for n := range watchers {
		group.Go(func() error { return c.open(ctx, b, n) })
	}
	return group.Wait()
}

// open opens one stream, again where the run had not got to the cache in time.
func (c *crowd) open(ctx context.Context, b *bed, n int) error {
	token, err := b.Token(fmt.Sprintf("user_%d", n/perUser))
	if err != nil {
		return err
	}
	for begun := time.Now(); ; {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", b.api.Address)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		fmt.Fprintf(conn, "GET /status/%s HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\nAuthorization: Bearer %s\r\n\r\n", runOf(n), token)
		in := bufio.NewReaderSize(conn, 2<<10)
		answer, err := http.ReadResponse(in, nil)
		if err != nil {
			conn.Close()
			return fmt.Errorf("read the header: %w", err)
		}
		answer.Body.Close() // of a stream it reads nothing more: the connection is closed by us
		if answer.StatusCode == http.StatusOK {
			return c.follow(conn, in)
		}
		conn.Close()
		known := answer.StatusCode != http.StatusServiceUnavailable && answer.StatusCode != http.StatusNotFound
		if known || time.Since(begun) > time.Minute {
			return fmt.Errorf("a stream is answered with %s", answer.Status)
		}
		time.Sleep(50 * time.Millisecond) // the run has not got so far yet
	}
}

// follow waits for the first event, and notes those that come later.
func (c *crowd) follow(conn net.Conn, in *bufio.Reader) error {
	c.mu.Lock()
	c.conns = append(c.conns, conn)
	c.mu.Unlock()
	first := make(chan error, 1)
	c.group.Go(func() {
		first <- c.read(in)
		for c.read(in) == nil {
			continue // what does not come is missing in the end
		}
	})
	return <-first
}

// read reads up to the next event, and notes its change.
func (c *crowd) read(in *bufio.Reader) error {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("a stream has ended: %w", err)
		}
		if bytes.HasPrefix(line, []byte("data:")) {
			if n, ok := changeIn(line); ok {
				c.note(n)
			}
			return nil
		}
	}
}

// changeIn finds the number of the change in a run's document.
func changeIn(line []byte) (int, bool) {
	_, rest, _ := bytes.Cut(line, []byte(`"message":"`))
	digits, _, found := bytes.Cut(rest, []byte(`"`))
	n, err := strconv.Atoi(string(digits))
	return n, found && err == nil
}

// note notes that a change has come to one more.
func (c *crowd) note(n int) {
	if n < 0 || n >= len(c.written) {
		return
	}
	if place := int(c.came[n].Add(1)) - 1; place < perRun {
		c.arrivals[n*perRun+place].Store(int64(time.Since(c.begun)))
	}
}

// await waits until all changes have come to all, and returns how many have not.
func (c *crowd) await(ctx context.Context, most time.Duration) (missing int) {
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		missing = 0
		for n := range c.came {
			missing += perRun - int(c.came[n].Load())
		}
		if missing <= 0 || time.Since(begun) > most || ctx.Err() != nil {
			return missing
		}
	}
}

// late returns how long after its commit each change came, in ms. One that overtook
// the commit's own reply came at once.
func (c *crowd) late() []float64 {
	var all []float64
	for i := range c.arrivals {
		if at := c.arrivals[i].Load(); at > 0 {
			all = append(all, max(0, float64(at-c.written[i/perRun].Load())/1e6))
		}
	}
	return all
}

// leave ends all streams.
func (c *crowd) leave() {
	c.mu.Lock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	c.group.Wait()
}
