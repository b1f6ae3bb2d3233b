//go:build !linux

package testserver

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// DieWithParent has no counterpart here: what outlives its test is to be ended
// by hand.
func DieWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr { return attr }

// childrenOf returns the processes that a process started and that still run.
func childrenOf(pid int) []int {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil
	}
	var children []int
	for line := range strings.Lines(string(out)) {
		var child, parent int
		if _, err := fmt.Sscan(line, &child, &parent); err == nil && parent == pid {
			children = append(children, child)
		}
	}
	return children
}
