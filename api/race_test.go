//go:build race

package api

// raceDetector says that allocations cannot be counted: it makes some of its own.
const raceDetector = true
