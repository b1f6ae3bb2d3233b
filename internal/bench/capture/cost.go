package capture

import (
	"context"
	"fmt"
	"time"

	"mythiccache/internal/bench/gauge"
)

// cost is processor time, by who used it.
type cost struct {
	postgres time.Duration // all backends
	session  time.Duration // of them, the one that the contestant's process listens with
	process  time.Duration // that process
	redis    time.Duration
	load     time.Duration // whoever makes the load
}

// spent returns what all have used so far.
func (b *bed) spent(ctx context.Context, c *contestant) (cost, error) {
	var s cost
	var err error
	if s.postgres, err = gauge.FamilyCPU(b.postgres.PID()); err != nil {
		return s, err
	}
	if s.redis, err = gauge.CPU(b.redis.PID()); err != nil {
		return s, err
	}
	if c.process == nil {
		return s, nil
	}
	if s.process, err = gauge.CPU(c.process.PID()); err != nil {
		return s, err
	}
	pid, err := c.backend(ctx)
	if err != nil {
		return s, err
	}
	s.session, err = gauge.CPU(pid)
	return s, err
}

func (s cost) minus(before cost) cost {
	return cost{
		postgres: s.postgres - before.postgres, session: s.session - before.session, process: s.process - before.process,
		redis: s.redis - before.redis, load: s.load - before.load,
	}
}

func (s cost) plus(other cost) cost {
	return cost{
		postgres: s.postgres + other.postgres, session: s.session + other.session, process: s.process + other.process,
		redis: s.redis + other.redis, load: s.load + other.load,
	}
}

// per tells the cost of a thousand of n things.
func (s cost) per(n int) string {
	each := func(d time.Duration) float64 { return d.Seconds() * 1000 * 1000 / float64(n) }
	return fmt.Sprintf("writers' backends %.0f ms, process's session %.0f ms, process %.0f ms, Redis %.0f ms, load %.0f ms",
		each(s.postgres-s.session), each(s.session), each(s.process), each(s.redis), each(s.load))
}
