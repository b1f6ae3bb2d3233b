package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

// member is a process of the program that plays one role, with ways of its own to both
// servers.
type member struct {
	t               testing.TB
	name, role      string
	postgres, redis *link
	environ         []string
	base            string // of the API; the same after a restart

	cmd   *exec.Cmd
	log   *programLog
	ended bool
}

// newMember starts one. System s is where the servers are, and is not started.
func (s *system) newMember(role string, number int) *member {
	s.t.Helper()
	port, err := testserver.FreePort(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	p := &member{
		t: s.t, name: fmt.Sprintf("%s %d", role, number), role: role, base: "http://127.0.0.1:" + strconv.Itoa(port),
		postgres: newLink(s.t, s.server.Port), redis: newLink(s.t, s.redis.Port),
	}
	apart := *s
	apart.settings = maps.Clone(s.settings)
	apart.settings["DATABASE_URL"] = p.postgres.through(s.database)
	apart.settings["REDIS_URL"] = p.redis.through(s.redis.URL())
	apart.settings["HTTP_ADDR"] = strings.TrimPrefix(p.base, "http://")
	p.environ = apart.environ()
	p.start()
	s.t.Cleanup(func() {
		p.kill()
		if s.t.Failed() {
			said := p.log.String()
			s.t.Logf("%s said, at the end:\n%s", p.name, said[max(0, len(said)-3000):])
		}
	})
	return p
}

func (p *member) start() {
	p.t.Helper()
	p.log, p.ended = &programLog{addr: make(chan string, 1), ended: make(chan struct{})}, false
	p.cmd = exec.Command(os.Args[0], "run", "--roles", p.role)
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

func (p *member) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// started returns an error until the process listens to signals.
func (p *member) started() error {
	if !strings.Contains(p.log.String(), `"message":"starting"`) {
		return errors.New("not yet")
	}
	return nil
}

// kill ends the process as the kernel would.
func (p *member) kill() {
	if p.ended {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.log.ended
	_ = p.cmd.Wait()
	p.ended = true
	p.examine()
}

// stop asks the process to end and demands that it does so well.
func (p *member) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.log.ended:
	case <-time.After(time.Minute):
		p.t.Fatalf("%s does not stop", p.name)
	}
	p.ended = true
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s stopped with %v", p.name, err)
	}
	p.examine()
}

// examine fails the test where the process broke rather than was broken, and where
// its auditor found the cache wrong.
func (p *member) examine() {
	said := p.log.String()
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "the cache was wrong"} {
		if at := strings.Index(said, bad); at >= 0 {
			p.t.Errorf("%s: %s", p.name, said[max(0, at-1000):min(len(said), at+4000)])
		}
	}
}
