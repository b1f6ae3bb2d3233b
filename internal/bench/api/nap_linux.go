package api

import (
	"syscall"
	"time"
)

// nap sleeps to within some hundredths of a millisecond.
func nap(d time.Duration) {
	left := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&left, nil) // woken early, it lets a request go early
}
