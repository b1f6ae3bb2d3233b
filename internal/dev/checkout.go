package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"mythiccache/internal/testserver"
)

// checkout is this repository on disk.
type checkout struct {
	root string
	data string // .local, which holds what this machine keeps of its own
}

// findCheckout finds the repository that the working directory is in.
func findCheckout(ctx context.Context) (*checkout, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("ask go for the module: %w", err)
	}
	gomod := strings.TrimSpace(string(out))
	if gomod == "" || gomod == os.DevNull {
		return nil, errors.New("this directory is in no checkout of mythic-cache")
	}
	root := filepath.Dir(gomod)
	return &checkout{root: root, data: filepath.Join(root, ".local")}, nil
}

func (c *checkout) path(parts ...string) string {
	return filepath.Join(append([]string{c.root}, parts...)...)
}

// lock makes .local and keeps a second `make run` away from it; release gives
// it up.
func (c *checkout) lock() (release func(), err error) {
	if err := os.MkdirAll(c.data, 0o755); err != nil {
		return nil, fmt.Errorf("make a place for data: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(c.data, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the data: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another `make run` is using the data in %s: stop it first", c.data)
	}
	return func() { f.Close() }, nil
}

// postgresDir returns where the cluster's data lives. PostgreSQL runs as another
// user where this process is root; when that user may not enter the checkout,
// the data stands under /var/tmp and .local/postgres links there.
func (c *checkout) postgresDir(ctx context.Context) (string, error) {
	dir := filepath.Join(c.data, "postgres")
	if target, err := filepath.EvalSymlinks(dir); err == nil {
		return target, nil
	}
	may, err := testserver.PostgresMayEnter(ctx, c.data)
	if err != nil {
		return "", err
	}
	if may {
		return dir, nil
	}
	// A link whose target somebody cleared away is of no use.
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("replace the link to the data: %w", err)
	}
	elsewhere, err := os.MkdirTemp("/var/tmp", "mythic-cache-")
	if err != nil {
		return "", fmt.Errorf("make a directory that PostgreSQL may enter: %w", err)
	}
	if err := os.Chmod(elsewhere, 0o755); err != nil {
		return "", fmt.Errorf("let PostgreSQL into %s: %w", elsewhere, err)
	}
	data := filepath.Join(elsewhere, "postgres")
	if err := os.Mkdir(data, 0o700); err != nil {
		return "", fmt.Errorf("make the data directory: %w", err)
	}
	if err := os.Symlink(data, dir); err != nil {
		return "", fmt.Errorf("link to the data: %w", err)
	}
	return data, nil
}
