//go:build !linux

package testserver

// memory has no counterpart here.
func memory() string { return "" }

// runs is asked only of what is in memory.
func runs(int) bool { return true }
