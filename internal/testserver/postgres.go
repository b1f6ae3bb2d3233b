package testserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	bin, err := PostgresBin()
	if err != nil {
		return nil, err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	p := &Postgres{Port: o.Port, bin: bin, dir: o.Dir, as: as, settings: map[string]string{
		"fsync": "off", "max_connections": "200", "shared_buffers": "64MB",
		"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_wal_size": "2GB",
	}}
	for name, value := range o.Settings {
		p.settings[name] = value
	}
	if p.Port == 0 {
		if p.Port, err = freePort(); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(filepath.Join(p.dir, "PG_VERSION")); err != nil {
		if err := p.initialise(ctx); err != nil {
			return nil, err
		}
	}
	return p, p.Start(ctx)
}

// initialise makes the cluster, for the superuser postgres and without passwords.
func (p *Postgres) initialise(ctx context.Context) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	if err := p.as.own(p.dir); err != nil {
		return fmt.Errorf("hand over the data directory: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"),
		"--pgdata", p.dir, "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as.credential()}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
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
		return conn.Close(ctx)
	}
	var err error
	p.process, err = start(ctx, p.as, p.dir, ready, filepath.Join(p.bin, "postgres"), args...)
	return err
}

// URL returns the connection string of a database of the cluster.
func (p *Postgres) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", p.Port, database)
}

// Dir returns the data directory.
func (p *Postgres) Dir() string { return p.dir }

// Gone is closed when the running server has ended.
func (p *Postgres) Gone() <-chan struct{} { return p.process.gone }

// Stop is a fast shutdown: clean, without waiting for clients.
func (p *Postgres) Stop() { p.process.stop(syscall.SIGINT) }

// Kill ends the postmaster and every backend with SIGKILL; Start then recovers.
func (p *Postgres) Kill() { p.process.kill() }

// CrashBackend ends one backend with SIGKILL, upon which the postmaster ends
// all others and goes through crash recovery by itself.
func (p *Postgres) CrashBackend(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }

// PostgresBin returns the directory of PostgreSQL's server programs: on PATH, or
// where Debian and Homebrew put them, the newest first.
func PostgresBin() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path), nil
	}
	var found []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin"} {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
				found = append(found, dir)
			}
		}
	}
	if len(found) == 0 {
		return "", fmt.Errorf("no PostgreSQL server here: looked on PATH and in %s", "/usr/lib/postgresql")
	}
	return slices.MaxFunc(found, func(a, b string) int { return majorOf(a) - majorOf(b) }), nil
}

// majorOf returns the major version that a directory's name holds, 0 for none.
func majorOf(dir string) int {
	digits := strings.TrimLeft(strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return ' '
	}, dir), " ")
	first, _, _ := strings.Cut(digits, " ")
	major, _ := strconv.Atoi(first)
	return major
}
