package producers

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// silencer passes bytes on to a server and back until the connections that are open
// fall silent: they stay, and nothing comes through either way.
type silencer struct {
	listener net.Listener
	to       string
	group    sync.WaitGroup
	made     atomic.Int64
	passed   atomic.Int64

	mu    sync.Mutex
	ends  []net.Conn
	quiet chan struct{}
}

func newSilencer(t *testing.T, to string) *silencer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &silencer{listener: l, to: to, quiet: make(chan struct{})}
	s.group.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			s.made.Add(1)
			s.mu.Lock()
			s.ends = append(s.ends, client, server)
			quiet := s.quiet
			s.mu.Unlock()
			s.group.Go(func() { s.pass(client, server, quiet) })
			s.group.Go(func() { s.pass(server, client, quiet) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for _, end := range s.ends {
			end.Close()
		}
		s.mu.Unlock()
		s.group.Wait()
	})
	return s
}

// pass copies until either end closes; what comes once it is quiet is swallowed. Of
// ends that were silenced, none learns that the other has gone.
func (s *silencer) pass(to, from net.Conn, quiet <-chan struct{}) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		select {
		case <-quiet:
			if err == nil {
				_, _ = io.Copy(io.Discard, from)
			}
			return
		default:
		}
		if err == nil {
			s.passed.Add(int64(n))
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			to.Close()
			from.Close()
			return
		}
	}
}

func (s *silencer) addr() string { return s.listener.Addr().String() }

// bytes is how many have passed, both ways.
func (s *silencer) bytes() int64 { return s.passed.Load() }

// ways is how many connections were ever made.
func (s *silencer) ways() int64 { return s.made.Load() }

func (s *silencer) fallSilent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.quiet)
	s.quiet = make(chan struct{})
}
