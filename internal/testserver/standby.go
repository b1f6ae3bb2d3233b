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
	if _, err := p.Run(t.Context(), "pg_basebackup", "--pgdata", data, "--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream",
		"--host=127.0.0.1", "--port="+strconv.Itoa(port), "--username=postgres", "--no-sync"); err != nil {
		t.Fatal(err)
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

// Run runs one of PostgreSQL's client programs, such as pg_dump, as the user that
// the cluster runs as, and returns what it printed.
func (p *Postgres) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, program), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as.credential()}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return out, nil
}
