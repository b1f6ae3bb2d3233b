package capture

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"mythiccache/internal/testserver"
)

// process is a contestant's program.
type process struct {
	cmd  *exec.Cmd
	log  string
	gone chan struct{} // closed when it has ended
}

func startProcess(log string, environ []string, arguments ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	defer out.Close() // the process has its own
	p := &process{cmd: exec.Command(arguments[0], arguments[1:]...), log: log, gone: make(chan struct{})}
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

func (p *process) pid() int { return p.cmd.Process.Pid }

// alive returns why the process has ended, where it has.
func (p *process) alive() error {
	select {
	case <-p.gone:
		return fmt.Errorf("%s has ended; it said: %s", filepath.Base(p.cmd.Path), p.said())
	default:
		return nil
	}
}

// said returns the end of what the process printed.
func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// stop asks the process to end, and makes sure.
func (p *process) stop() error {
	if err := p.alive(); err != nil {
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
		return fmt.Errorf("%s did not end within %s; it said: %s", filepath.Base(p.cmd.Path), patience, p.said())
	}
}
