package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// relayProcess is one process of the program that does nothing but relay, with
// links of its own to both servers.
type relayProcess struct {
	t               testing.TB
	name            string
	postgres, redis *link
	environ         []string

	cmd *exec.Cmd
	log *relayLog
}

// endAtOnce has the race detector not wait for a second when a program ends: these
// end often.
const endAtOnce = "atexit_sleep_ms=0"

// relayLog is what a process said of itself since it was started.
type relayLog struct {
	order *atomic.Int64 // of what all processes say
	ended chan struct{}

	mu       sync.Mutex
	text     bytes.Buffer
	led      int64 // when it last took the lead; 0 where it has let go of it since
	standsBy bool
}

// newRelayProcess starts one. System s is where the servers are, and is not started.
func (s *system) newRelayProcess(name string, order *atomic.Int64) *relayProcess {
	s.t.Helper()
	p := &relayProcess{t: s.t, name: name, postgres: newLink(s.t, s.server.Port), redis: newLink(s.t, s.redis.Port)}
	apart := *s
	apart.settings = maps.Clone(s.settings)
	apart.settings["DATABASE_URL"] = p.postgres.through(s.database)
	apart.settings["REDIS_URL"] = p.redis.through(s.redis.URL())
	p.environ = apart.environ()
	p.start(order)
	s.t.Cleanup(func() {
		p.kill()
		if s.t.Failed() {
			said := p.log.String()
			s.t.Logf("%s said, at the end:\n%s", name, said[max(0, len(said)-3000):])
		}
	})
	return p
}

func (p *relayProcess) start(order *atomic.Int64) {
	p.t.Helper()
	p.log = &relayLog{order: order, ended: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], "run", "--roles", "relay")
	p.cmd.Env = p.environ
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go p.log.follow(stderr)
}

func (l *relayLog) follow(r io.Reader) {
	defer close(l.ended)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct{ Message string }
		_ = json.Unmarshal(lines.Bytes(), &line) // what is no line of the log says no role
		l.mu.Lock()
		l.text.Write(lines.Bytes())
		l.text.WriteByte('\n')
		switch line.Message {
		case "relay leads":
			l.led, l.standsBy = l.order.Add(1), false
		case "relay leads no longer":
			l.led = 0
		case "relay stands by":
			l.standsBy = true
		case "relay lost its session":
			l.standsBy = false
		}
		l.mu.Unlock()
	}
}

func (l *relayLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *relayLog) role() (led int64, standsBy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.led, l.standsBy
}

func (p *relayProcess) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// kill ends the process as the kernel would.
func (p *relayProcess) kill() {
	_ = p.cmd.Process.Kill()
	<-p.log.ended
	_ = p.cmd.Wait()
	p.examine()
}

// awaitEnd waits for a process that was asked to end, and demands that it does so well.
func (p *relayProcess) awaitEnd() {
	p.t.Helper()
	select {
	case <-p.log.ended:
	case <-time.After(time.Minute):
		p.t.Fatalf("%s does not stop", p.name)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s stopped with %v", p.name, err)
	}
	p.examine()
}

// examine fails the test where the process broke rather than was broken.
func (p *relayProcess) examine() {
	said := p.log.String()
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if at := strings.Index(said, bad); at >= 0 {
			p.t.Errorf("%s: %s", p.name, said[at:min(len(said), at+4000)])
		}
	}
}
