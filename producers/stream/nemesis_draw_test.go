package stream_test

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// draw is all that is left to chance about one fault, but for when exactly it meets
// whom, which is the machine's to say.
type draw struct {
	fault     nemesisFault
	before    time.Duration // the load has for itself
	backlog   int           // events published at once, just before
	pick      int           // of whatever there are several of
	part      float64       // 0 to 1, of the span that it may last
	meanwhile string        // a fault on top of one that lasts, "" for none
	awaited   bool          // the next fault waits until events are handled again
}

func (d draw) String() string {
	return fmt.Sprintf("%-45s backlog %3d, pick %4d, part %.2f", d.fault.name, d.backlog, d.pick, d.part)
}

// drawFaults returns faults to come, the same for the same seed: for 0 one of each
// kind, else as many as are wanted.
func drawFaults(seed, wanted int) []draw {
	return rapid.Custom(func(t *rapid.T) []draw {
		deck := rapid.Permutation(nemesisFaults()).Draw(t, "deck")
		if wanted == 0 {
			met := map[string]bool{onlyLong: true}
			deck = slices.DeleteFunc(deck, func(f nemesisFault) bool {
				again := met[f.kind]
				met[f.kind] = true
				return again
			})
		}
		for len(deck) < wanted {
			deck = append(deck, rapid.Permutation(nemesisFaults()).Draw(t, "more")...)
		}
		if wanted > 0 {
			deck = deck[:wanted]
		}
		draws := make([]draw, len(deck))
		for i, f := range deck {
			draws[i] = draw{
				fault:     f,
				before:    time.Duration(evenly(t, 7, "before")) * time.Millisecond,
				backlog:   []int{0, 0, 50, 100}[evenly(t, 2, "backlog")],
				pick:      evenly(t, 13, "pick"),
				part:      float64(evenly(t, 7, "part")) / 127,
				meanwhile: meanwhile()[evenly(t, 3, "meanwhile")],
				awaited:   evenly(t, 2, "awaited") > 0,
			}
		}
		return draws
	}).Example(seed)
}

func meanwhile() []string {
	return []string{"", "", "", "worker killed", "worker restarted", "worker restarted", "group destroyed", "clients killed"}
}

// evenly draws a number of so many bits. The ranges of rapid itself prefer what is
// small.
func evenly(t *rapid.T, bits int, what string) int {
	n := 0
	for range bits {
		n <<= 1
		if rapid.Bool().Draw(t, what) {
			n++
		}
	}
	return n
}
