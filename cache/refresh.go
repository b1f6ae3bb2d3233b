package cache

import (
	"math"
	"math/rand/v2"
	"time"
)

// An entry that many read is made anew a little before its time is over, so that
// none of them has to wait: each reader of a Hit draws whether to ask for that, and
// the more likely it is the closer the end and the longer a load. This is XFetch
// (Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede
// Prevention", VLDB 2015): ask when now - delta * beta * ln(rand) >= end. An entry
// that is read once in its life is hardly ever read so late, and costs nothing.
const (
	// beta is the paper's; above 1 is earlier.
	beta = 1.0
	// wayTook is added to what the load took, for delta: the way over the stream.
	wayTook = 10 * time.Millisecond
	// never is how many deltas before the end nobody draws: e to the power of -40 is
	// below what rand can give.
	never = 40
)

// early draws whether a reader of a fresh entry should ask for the next. It does not
// before half of the entry's life is over: what takes longer to make than it keeps
// would be made all the time.
func (e Entry) early(now time.Time, draw float64) bool {
	left := e.FreshUntil.Sub(now)
	delta := e.LoadTook + wayTook
	if left > never*delta || left > e.FreshUntil.Sub(e.Saved)/2 {
		return false
	}
	return -float64(delta)*beta*math.Log(draw) >= float64(left)
}

// draw returns a number above 0, up to 1.
func draw() float64 { return 1 - rand.Float64() }
