package testserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// NewStandby starts a standby of the cluster that streams from a port: the
// cluster's own, or one that leads to it and can be cut.
func (p *Postgres) NewStandby(t testing.TB, port int) *Postgres {
	t.Helper()
	dir, err := tempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.as.own(data); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), p.client("pg_basebackup"), "--pgdata", data, "--write-recovery-conf",
		"--checkpoint=fast", "--wal-method=stream", "--host=127.0.0.1", "--port="+strconv.Itoa(port), "--username=postgres", "--no-sync")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as.credential()}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v: %s", err, out)
	}
	s, err := StartPostgres(t.Context(), PostgresOptions{Dir: data, Settings: maps.Clone(p.settings)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Promote makes a primary of a standby, and returns when it takes writes.
func (p *Postgres) Promote(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	defer conn.Close(ctx)
	var promoted bool
	if err := conn.QueryRow(ctx, "SELECT pg_promote()").Scan(&promoted); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if !promoted {
		return errors.New("promote: the standby does not come out of recovery")
	}
	return nil
}

// client finds a client program: beside the server, or where the server is linked
// from, or on PATH.
func (p *Postgres) client(name string) string {
	dirs := []string{p.bin}
	if server, err := filepath.EvalSymlinks(filepath.Join(p.bin, "postgres")); err == nil {
		dirs = append(dirs, filepath.Dir(server))
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return name
}

// Run runs one of PostgreSQL's client programs, such as pg_dump.
func (p *Postgres) Run(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, p.client(program), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return nil
}

// Freeze stops every process of the cluster until Thaw, as a machine does that
// hangs: connections stay open, and nobody answers.
func (p *Postgres) Freeze() error { return p.signalAll(syscall.SIGSTOP) }

// Thaw lets a frozen cluster run on.
func (p *Postgres) Thaw() error { return p.signalAll(syscall.SIGCONT) }

// signalAll begins with the postmaster: stopped, it makes no new processes.
func (p *Postgres) signalAll(sig syscall.Signal) error {
	if err := p.process.signal(sig); err != nil {
		return fmt.Errorf("signal the cluster: %w", err)
	}
	for _, child := range childrenOf(p.process.cmd.Process.Pid) {
		if err := syscall.Kill(child, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal the cluster: %w", err)
		}
	}
	return nil
}
