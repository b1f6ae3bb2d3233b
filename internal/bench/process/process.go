package process

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"mythiccache/internal/testserver"
)

// patience bounds the wait for a process's end, and for its first good answer.
const patience = 2 * time.Minute

// Process is a program that runs.
type Process struct {
	cmd  *exec.Cmd
	log  string
	gone chan struct{} // closed when it has ended
}

// Start starts a program with its arguments; what it prints goes into the file log.
func Start(log string, environ []string, arguments ...string) (*Process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	defer out.Close() // the process has its own
	p := &Process{cmd: exec.Command(arguments[0], arguments[1:]...), log: log, gone: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = environ, out, out
	p.cmd.SysProcAttr = testserver.DieWithParent(&syscall.SysProcAttr{})
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", arguments[0], err)
	}
	go func() {
		defer close(p.gone)
		_ = p.cmd.Wait() // its log says why it ended
	}()
	return p, nil
}

// PID is its process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Alive returns why the process has ended, where it has.
func (p *Process) Alive() error {
	select {
	case <-p.gone:
		return fmt.Errorf("%s has ended; it said: %s", filepath.Base(p.cmd.Path), p.Said())
	default:
		return nil
	}
}

// Answers waits until the process answers a request with 200.
func (p *Process) Answers(ctx context.Context, address, path string, header http.Header) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return err
	}
	if header != nil {
		r.Header = header
	}
	said := ""
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(2 * time.Millisecond) {
		answer, err := http.DefaultClient.Do(r)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
			said = answer.Status
		} else {
			said = err.Error()
		}
		if err := errors.Join(p.Alive(), ctx.Err()); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s%s does not become good: %s; its process said: %s", address, path, said, p.Said())
}

// Said returns the end of what the process printed.
func (p *Process) Said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// Succeed waits for the process to end by itself, and says what it printed where it
// failed.
func (p *Process) Succeed() error {
	<-p.gone
	if !p.cmd.ProcessState.Success() {
		return fmt.Errorf("%s: %s; it said: %s", p.cmd, p.cmd.ProcessState, p.Said())
	}
	return nil
}

// Stop asks the process to end, and makes sure.
func (p *Process) Stop() error {
	if err := p.Alive(); err != nil {
		return err
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", filepath.Base(p.cmd.Path), err)
	}
	select {
	case <-p.gone:
		return nil
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.gone
		return fmt.Errorf("%s did not end within %s; it said: %s", filepath.Base(p.cmd.Path), patience, p.Said())
	}
}
