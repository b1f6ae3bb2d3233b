package testserver

import (
	"fmt"
	"os"
	"path/filepath"
)

// Written returns the size of the append-only file. It is to be compared only
// where Redis never rewrites the file (auto-aof-rewrite-percentage 0).
func (r *Redis) Written() (int64, error) {
	file, err := r.log()
	if err != nil {
		return 0, err
	}
	about, err := os.Stat(file)
	if err != nil {
		return 0, fmt.Errorf("look at the append-only file: %w", err)
	}
	return about.Size(), nil
}

// Forget has a server that is not running lose what it wrote behind a size of the
// append-only file, as a machine does that loses its power.
func (r *Redis) Forget(behind int64) error {
	file, err := r.log()
	if err != nil {
		return err
	}
	if err := os.Truncate(file, behind); err != nil {
		return fmt.Errorf("cut the append-only file: %w", err)
	}
	return nil
}

// log is the part of the append-only file that Redis writes to.
func (r *Redis) log() (string, error) {
	files, err := filepath.Glob(filepath.Join(r.dir, "appendonlydir", "*.incr.aof"))
	if err != nil {
		return "", fmt.Errorf("look for the append-only file: %w", err)
	}
	if len(files) != 1 {
		return "", fmt.Errorf("look for the append-only file: there are %d", len(files))
	}
	return files[0], nil
}
