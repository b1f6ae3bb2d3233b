package api

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"mythiccache/internal/bench/gauge"
)

// connections are held open by whoever asks.
const connections = 32

// round is what one run of wrk gave.
type round struct {
	rate float64 // requests per second
	n    int     // requests
	cpu  used
}

// used is processor time.
type used struct{ server, redis time.Duration }

// used returns what server and Redis have used so far.
func (c *contestant) used() (u used, err error) {
	if u.server, err = gauge.CPU(c.process.PID()); err == nil {
		u.redis, err = gauge.CPU(c.redisPID)
	}
	return u, err
}

var (
	wrkRate   = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkCount  = regexp.MustCompile(`(\d+) requests in`)
	wrkErrors = regexp.MustCompile(`Non-2xx or 3xx|Socket errors`)
)

// wrk asks a contestant as often as it answers.
func (c *contestant) wrk(ctx context.Context, period time.Duration) (round, error) {
	if c.ready != nil {
		if err := c.ready(ctx); err != nil {
			return round{}, err
		}
	}
	args := []string{"-t1", "-c" + strconv.Itoa(connections), "-d" + strconv.Itoa(int(period.Seconds())) + "s"}
	for name, values := range c.header {
		args = append(args, "-H", name+": "+values[0])
	}
	before, err := c.used()
	if err != nil {
		return round{}, err
	}
	said, err := exec.CommandContext(ctx, "wrk", append(args, "http://"+c.address+c.path)...).CombinedOutput()
	if err != nil {
		return round{}, fmt.Errorf("wrk (Debian's package wrk): %w: %s", err, said)
	}
	after, err := c.used()
	if err != nil {
		return round{}, err
	}
	if wrkErrors.Match(said) {
		return round{}, fmt.Errorf("wrk met errors of %s: %s; it said: %s", c.name, said, c.process.Said())
	}
	rate, count := wrkRate.FindSubmatch(said), wrkCount.FindSubmatch(said)
	if rate == nil || count == nil {
		return round{}, fmt.Errorf("wrk said nothing of requests: %s", said)
	}
	r := round{cpu: used{after.server - before.server, after.redis - before.redis}}
	if r.rate, err = strconv.ParseFloat(string(rate[1]), 64); err == nil {
		r.n, err = strconv.Atoi(string(count[1]))
	}
	if err != nil {
		return round{}, fmt.Errorf("wrk's words: %w", err)
	}
	return r, nil
}
