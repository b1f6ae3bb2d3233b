package testserver

import (
	"errors"
	"syscall"
)

// memoryLeast is how much must be free in memory: some packages' tests run side
// by side, and each cluster's log grows to a few hundred megabytes.
const memoryLeast = 4 << 30

// memory returns a directory in memory, see tmpfs(5), or "" where there is none
// with room enough; a container's has 64 MB.
func memory() string {
	const dir = "/dev/shm"
	var about syscall.Statfs_t
	if err := syscall.Statfs(dir, &about); err != nil || about.Bavail*uint64(about.Bsize) < memoryLeast {
		return ""
	}
	return dir
}

// runs reports whether there is such a process.
func runs(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
