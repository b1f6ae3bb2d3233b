package stream_test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

// nemesisProcess is a worker or a relay, which can be started again when it has ended.
type nemesisProcess struct {
	t    testing.TB
	name string
	does assignment

	cmd   *exec.Cmd
	said  *testserver.Log
	ready chan struct{} // closed when it says that it is ready
	ended chan struct{} // closed when it has ended, and err says how
	err   error
}

func startNemesisProcess(t testing.TB, name string, does assignment) *nemesisProcess {
	t.Helper()
	p := &nemesisProcess{t: t, name: name, does: does}
	p.start()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if said := p.said.String(); t.Failed() && said != "" {
			t.Logf("%s said, at the end:\n%s", name, said[max(0, len(said)-3000):])
		}
	})
	return p
}

func (p *nemesisProcess) start() {
	p.t.Helper()
	does, err := json.Marshal(p.does)
	if err != nil {
		p.t.Fatal(err)
	}
	p.said, p.ready, p.ended = &testserver.Log{}, make(chan struct{}), make(chan struct{})
	p.cmd = exec.Command(os.Args[0])
	// The race detector waits for a second when a program ends: these end often.
	p.cmd.Env = []string{asProcess + "=" + string(does), "GORACE=atexit_sleep_ms=0"}
	p.cmd.SysProcAttr = testserver.DieWithParent(&syscall.SysProcAttr{})
	p.cmd.Stderr = p.said
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if lines.Text() == readyLine {
				close(p.ready)
			}
		}
		p.err = p.cmd.Wait()
	}()
}

func (p *nemesisProcess) awaitReady() {
	p.t.Helper()
	select {
	case <-p.ready:
	case <-p.ended:
		p.t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.said)
	case <-time.After(time.Minute):
		p.t.Fatalf("%s does not become ready:\n%s", p.name, p.said)
	}
}

func (p *nemesisProcess) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// kill ends the process as the kernel would.
func (p *nemesisProcess) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	p.awaitDeath()
}

// awaitDeath waits for a process that was killed.
func (p *nemesisProcess) awaitDeath() {
	p.t.Helper()
	within(p.t, "the end of "+p.name, p.ended)
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		p.t.Errorf("%s was to be killed and ended by itself: %v\n%s", p.name, p.err, p.said)
	}
	p.examine()
}

// stop asks the process to end, as a deploy does, and demands that it does so well
// and leaves no goroutine behind.
func (p *nemesisProcess) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		p.t.Fatalf("%s does not stop:\n%s", p.name, p.said)
	}
	if p.err != nil {
		p.t.Errorf("%s stopped with %v:\n%s", p.name, p.err, p.said)
	}
	p.examine()
}

// examine fails the test where the process broke rather than was broken.
func (p *nemesisProcess) examine() {
	p.t.Helper()
	said := "\n" + p.said.String()
	for _, bad := range []string{"DATA RACE", "\npanic:", "\nfatal error:"} {
		if at := strings.Index(said, bad); at >= 0 {
			p.t.Errorf("%s: %s", p.name, said[at:min(len(said), at+4000)])
		}
	}
}
