package testserver

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// DieWithParent has the kernel end the server when this process dies, however
// it dies.
func DieWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	attr.Pdeathsig = syscall.SIGKILL
	return attr
}

// childrenOf returns the processes that a process started and that still run,
// from proc(5), since a small system has no ps.
func childrenOf(pid int) []int {
	var children []int
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue // it has just ended
		}
		// "PID (any name, even with brackets) STATE PPID …"
		var child, parent int
		var state string
		_, after, _ := bytes.Cut(text[max(0, bytes.LastIndexByte(text, ')')):], []byte(" "))
		if _, err := fmt.Sscan(string(text), &child); err != nil {
			continue
		}
		if _, err := fmt.Sscan(string(after), &state, &parent); err == nil && parent == pid {
			children = append(children, child)
		}
	}
	return children
}
