package testserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// Postgres is one PostgreSQL cluster, which can be stopped, crashed and started
// again on the same port and data.
type Postgres struct {
	Port int

	bin      string
	dir      string
	settings map[string]string
	as       *owner
	process  *process
}

// PostgresOptions says how a cluster differs from the usual one.
type PostgresOptions struct {
	Dir      string            // where its data lives; a cluster found there is started as it is
	Port     int               // 0 for a free one
	Settings map[string]string // of postgresql.conf; fsync is off where it does not say otherwise
}

// StartPostgres makes a cluster where there is none and starts it.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	bin, err := PostgresBin(ctx)
	if err != nil {
		return nil, err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("name the data directory: %w", err)
	}
	p := &Postgres{bin: bin, dir: dir, as: as, settings: map[string]string{
		"fsync": "off", "max_connections": "200", "shared_buffers": "64MB",
		"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_wal_size": "2GB",
	}}
	maps.Copy(p.settings, o.Settings)
	switch _, err := os.Stat(filepath.Join(p.dir, "PG_VERSION")); {
	case errors.Is(err, fs.ErrNotExist):
		if err := p.initialise(ctx); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("look at the data directory: %w", err)
	}
	if err := onPort(ctx, o.Port, func(port int) error { p.Port = port; return p.Start(ctx) }); err != nil {
		return nil, err
	}
	return p, nil
}

// initialise makes the cluster, for the superuser postgres and without
// passwords. It makes it beside its place, so that one which was interrupted is
// not taken for whole.
func (p *Postgres) initialise(ctx context.Context) error {
	unfinished := p.dir + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("clear the data directory: %w", err)
	}
	if err := os.MkdirAll(unfinished, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	if err := p.as.own(unfinished); err != nil {
		return fmt.Errorf("hand over the data directory: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"),
		"--pgdata", unfinished, "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	cmd.Dir = unfinished
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as.credential(), Setpgid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	if err := os.Remove(p.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make way for the data directory: %w", err)
	}
	if err := os.Rename(unfinished, p.dir); err != nil {
		return fmt.Errorf("put the data directory in its place: %w", err)
	}
	return nil
}

// Start starts the cluster again after Stop, Crash or Kill.
func (p *Postgres) Start(ctx context.Context) error {
	args := []string{"-D", p.dir, "-p", strconv.Itoa(p.Port)}
	for name, value := range p.settings {
		args = append(args, "-c", name+"="+value)
	}
	ready := func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, p.URL("postgres"))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		var dir string
		if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&dir); err != nil {
			return err
		}
		if dir != p.dir {
			return fmt.Errorf("%w: on port %d answers a cluster in %s", errPortTaken, p.Port, dir)
		}
		return nil
	}
	for {
		var err error
		p.process, err = start(ctx, p.as, p.dir, ready, filepath.Join(p.bin, "postgres"), args...)
		// After a crash the kernel may still be taking down the last backend.
		if err == nil || !strings.Contains(err.Error(), "shared memory block") || ctx.Err() != nil {
			return err
		}
	}
}

// URL returns the connection string of a database of the cluster.
func (p *Postgres) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", p.Port, database)
}

// Dir returns the data directory.
func (p *Postgres) Dir() string { return p.dir }

// PID is the process id of the running postmaster.
func (p *Postgres) PID() int { return p.process.cmd.Process.Pid }

// Gone is closed when the running server has ended.
func (p *Postgres) Gone() <-chan struct{} { return p.process.gone }

// Stop is a fast shutdown: clean, without waiting for clients.
func (p *Postgres) Stop() { p.process.stop(syscall.SIGINT) }

// Kill ends the postmaster and every backend with SIGKILL; Start then recovers.
// The backends are in process groups of their own, and a busy one would else
// finish its statement first.
func (p *Postgres) Kill() {
	// A postmaster that is stopped makes no new ones meanwhile.
	_ = p.process.signal(syscall.SIGSTOP)
	for _, backend := range childrenOf(p.process.cmd.Process.Pid) {
		_ = syscall.Kill(backend, syscall.SIGKILL)
	}
	p.process.kill()
}

// CrashBackend ends one backend with SIGKILL, upon which the postmaster ends
// all others and goes through crash recovery by itself.
func (p *Postgres) CrashBackend(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }

// PostgresMayEnter reports whether the user that a cluster would run as can
// reach a directory, such as the parent of its data.
func PostgresMayEnter(ctx context.Context, dir string) (bool, error) {
	as, err := unprivileged()
	if err != nil {
		return false, err
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `cd "$1"`, "sh", dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as.credential()}
	return cmd.Run() == nil, nil
}
