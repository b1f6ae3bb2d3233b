package testserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// prefix begins the names of clusters' directories; the process that made one
// follows.
const prefix = "mythic-cache-test-"

// tempDir makes a directory that another user may pass through, as the one that
// PostgreSQL runs as under root must. It is in memory where the system has such a
// place: a database is 300 files, which a disk can take a third of a second over.
// Nothing that tests do to a cluster needs a disk, which only a crash of the whole
// machine would tell from memory. Who sets TMPDIR decides it.
func tempDir() (string, error) {
	parent := os.Getenv("TMPDIR")
	if parent == "" {
		parent = memory()
		sweep(parent)
	}
	dir, err := os.MkdirTemp(parent, prefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return "", fmt.Errorf("make a temporary directory: %w", err)
	}
	return dir, os.Chmod(dir, 0o755)
}

// sweep removes what tests left behind that were killed: memory comes back no
// other way before the machine restarts.
func sweep(parent string) {
	if parent == "" {
		return
	}
	left, err := filepath.Glob(filepath.Join(parent, prefix+"*-*"))
	if err != nil {
		return
	}
	for _, dir := range left {
		maker, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		if pid, err := strconv.Atoi(maker); err == nil && !runs(pid) {
			os.RemoveAll(dir)
		}
	}
}
