package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// session is one `make run`.
type session struct {
	checkout       *checkout
	getenv         func(string) string
	stdout, stderr io.Writer
}

// run brings everything up, waits for Ctrl-C or for the end of a part, and takes
// everything down.
func (s *session) run(ctx context.Context) error {
	address := cmp.Or(s.getenv("HTTP_ADDR"), ":8001")
	if err := checkFree(ctx, address); err != nil {
		return err
	}
	s.sayf("building bin/mythic-cache")
	if err := s.command(ctx, "make", "--no-print-directory", "--silent", "build").Run(); err != nil {
		return s.unlessAsked(ctx, fmt.Errorf("make build: %w", err))
	}
	s.sayf("looking for PostgreSQL and Redis")
	v, err := s.startServers(ctx)
	if err != nil {
		return s.unlessAsked(ctx, err)
	}
	defer func() {
		s.sayf("stopping Redis and PostgreSQL, where they are ours")
		v.stop(context.WithoutCancel(ctx))
		s.sayf("all is stopped; the data stays in .local")
	}()
	e := s.environment(v, address)
	for _, step := range []string{"migrate up", "demo load"} {
		s.sayf("mythic-cache %s", step)
		if err := s.worker(ctx, e, strings.Fields(step)...).Run(); err != nil {
			return s.unlessAsked(ctx, fmt.Errorf("mythic-cache %s: %w", step, err))
		}
	}
	return s.unlessAsked(ctx, s.work(ctx, v, e, address))
}

// work runs the worker until Ctrl-C, or until a part ends that should not.
func (s *session) work(ctx context.Context, v *servers, e environment, address string) error {
	w, err := startWorker(s.worker(context.WithoutCancel(ctx), e, "run"))
	if err != nil {
		return err
	}
	defer func() {
		s.sayf("stopping the worker")
		w.stop()
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	base := baseURL(address)
	if err := awaitReady(ctx, w, base); err != nil {
		return err
	}
	d, err := readDemo(ctx, v.databaseURL)
	if err != nil {
		return err
	}
	if err := d.print(s.stdout, e, v, base); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-w.gone:
		return errors.New("the worker ended by itself; its last lines say why")
	case name := <-v.gone(ctx):
		return fmt.Errorf("%s ended by itself", name)
	}
}

// unlessAsked drops the error that Ctrl-C causes.
func (s *session) unlessAsked(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

func (s *session) sayf(format string, args ...any) {
	fmt.Fprintf(s.stderr, "dev: "+format+"\n", args...)
}

// command is a program that is run to its end in the checkout, and asked to end
// on Ctrl-C.
func (s *session) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.checkout.root
	cmd.Stdout, cmd.Stderr = s.stderr, s.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's Ctrl-C reaches it through us
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// worker is a command of the worker's program.
func (s *session) worker(ctx context.Context, e environment, args ...string) *exec.Cmd {
	cmd := s.command(ctx, s.checkout.path("bin", "mythic-cache"), args...)
	cmd.Env = e.list(os.Environ())
	return cmd
}
