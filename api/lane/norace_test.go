//go:build !race

package lane

// raceDetector says that everything takes several times as long.
const raceDetector = false
