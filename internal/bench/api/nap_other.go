//go:build !linux

package api

import "time"

// nap sleeps.
func nap(d time.Duration) { time.Sleep(d) }
