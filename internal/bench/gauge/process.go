package gauge

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit that proc(5) counts processor time in: USER_HZ is 100 on every
// Linux of interest.
const tick = 10 * time.Millisecond

// stat is what proc(5) says of one process.
type stat struct {
	parent   int
	own      time.Duration // user and system time
	children time.Duration // of children that ended and were waited for
}

func readStat(path string) (stat, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return stat{}, err
	}
	// "PID (any name, even with brackets) STATE PPID …"
	fields := strings.Fields(string(text[max(0, bytes.LastIndexByte(text, ')')+1):]))
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("%s is not as proc(5) has it: %q", path, text)
	}
	var numbers [5]int
	for i, at := range []int{1, 11, 12, 13, 14} {
		if numbers[i], err = strconv.Atoi(fields[at]); err != nil {
			return stat{}, fmt.Errorf("%s is not as proc(5) has it: %w", path, err)
		}
	}
	return stat{
		parent:   numbers[0],
		own:      time.Duration(numbers[1]+numbers[2]) * tick,
		children: time.Duration(numbers[3]+numbers[4]) * tick,
	}, nil
}

// CPU returns the processor time that a process has used.
func CPU(pid int) (time.Duration, error) {
	s, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the time of process %d: %w", pid, err)
	}
	return s.own, nil
}

// FamilyCPU returns the processor time of a process and all its children, those
// too that have ended, such as a postmaster's backends.
func FamilyCPU(pid int) (time.Duration, error) {
	head, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the time of process %d: %w", pid, err)
	}
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, fmt.Errorf("list the processes: %w", err)
	}
	total := head.own + head.children
	for _, path := range paths {
		// One that has just ended is counted by its parent's next reading.
		if child, err := readStat(path); err == nil && child.parent == pid {
			total += child.own + child.children
		}
	}
	return total, nil
}

// Memory returns a process's resident bytes, now and at their highest.
func Memory(pid int) (now, highest int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	for name, into := range map[string]*int64{"VmRSS:": &now, "VmHWM:": &highest} {
		_, line, _ := strings.Cut(string(status), name)
		if _, err := fmt.Sscan(line, into); err != nil {
			return 0, 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
		}
		*into *= 1024
	}
	return now, highest, nil
}

// Load returns the machine's load average of the last minute, "unknown" where the
// system does not tell: a figure taken beside other work is worth less.
func Load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	minute, _, _ := strings.Cut(string(text), " ")
	return minute
}
