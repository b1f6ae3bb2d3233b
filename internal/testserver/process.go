package testserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// startTimeout bounds the time a server may take until it answers; a loaded
// two-core machine takes seconds.
const startTimeout = 60 * time.Second

// process is one running server.
type process struct {
	cmd    *exec.Cmd
	output *tail
	gone   chan struct{} // closed when the process has ended
}

// tail keeps the end of what a server prints, for the error that needs it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - 8<<10; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}

// start runs a program in a process group of its own and waits until ready
// returns nil.
func start(ctx context.Context, as *owner, dir string, ready func(context.Context) error, program string, args ...string) (*process, error) {
	// No CommandContext: the server outlives the context, which bounds its start
	p := &process{cmd: exec.Command(program, args...), output: &tail{}, gone: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = DieWithParent(&syscall.SysProcAttr{Setpgid: true, Credential: as.credential()})
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	go func() {
		defer close(p.gone)
		_ = p.cmd.Wait() // how it ended is no news: it is asked to, or its output says why
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return p, nil
		}
		if errors.Is(err, errPortTaken) {
			p.kill()
			return nil, fmt.Errorf("start %s: %w", filepath.Base(program), err)
		}
		select {
		case <-p.gone:
			return nil, fmt.Errorf("%s ended at once: %s", filepath.Base(program), p.output)
		case <-ctx.Done():
			p.kill()
			return nil, fmt.Errorf("%s does not answer: %w; it said: %s", filepath.Base(program), err, p.output)
		case <-tick.C:
		}
	}
}

// signal sends sig to the server alone.
func (p *process) signal(sig syscall.Signal) error {
	select {
	case <-p.gone:
		return os.ErrProcessDone
	default:
		return p.cmd.Process.Signal(sig)
	}
}

// stop asks with sig and, when that does not help, kills.
func (p *process) stop(sig syscall.Signal) {
	if p.signal(sig) != nil {
		return
	}
	select {
	case <-p.gone:
	case <-time.After(startTimeout):
		p.kill()
	}
}

// kill ends the server and all its children at once.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.gone
}

// owner is the user that a server runs as; nil is whoever runs this process.
type owner struct{ uid, gid int }

// unprivileged returns whom PostgreSQL should run as: nobody special, unless
// this process is root.
func unprivileged() (*owner, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.Atoi(u.Uid)
		gid, errGID := strconv.Atoi(u.Gid)
		if err := errors.Join(errUID, errGID); err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		return &owner{uid: uid, gid: gid}, nil
	}
	return nil, errors.New("postgres refuses to run as root, and there is neither a user postgres nor nobody")
}

func (o *owner) credential() *syscall.Credential {
	if o == nil {
		return nil
	}
	return &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}
}

// own makes a directory the owner's.
func (o *owner) own(dir string) error {
	if o == nil {
		return nil
	}
	return os.Chown(dir, o.uid, o.gid)
}
