package main

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"
)

// interleavingWeather is what a round of the harness is made of.
type interleavingWeather struct {
	Keys        int           // at a time; few, so that all meet
	Writers     int           //
	Fillers     int           //
	Appliers    int           // of each group
	Readers     int           //
	Lease       time.Duration // of a loader that does not renew it
	TTL         time.Duration // of entries
	FenceTTL    time.Duration //
	LongEvery   int           // one of so many transactions is long
	LateEvery   int           // one of so many events is late
	RepeatEvery int           // one of so many comes again
	DelayEvery  int           // one of so many commands to Redis is late, and so is its reply
	KillEvery   int           // one of so many calls of a handler or a loader ends in the middle
	FlushEvery  time.Duration // on average
	FenceEvery  time.Duration // on average, the whole view
}

// interleavingWeathers draws one.
func interleavingWeathers() *rapid.Generator[interleavingWeather] {
	return rapid.Custom(func(t *rapid.T) interleavingWeather {
		among := func(label string, of ...int) int { return rapid.SampledFrom(of).Draw(t, label) }
		ms := func(label string, of ...int) time.Duration {
			return time.Duration(among(label, of...)) * time.Millisecond
		}
		return interleavingWeather{
			Keys:    rapid.IntRange(2, 6).Draw(t, "keys"),
			Writers: rapid.IntRange(2, 5).Draw(t, "writers"), Fillers: rapid.IntRange(3, 8).Draw(t, "fillers"),
			Appliers: rapid.IntRange(1, 3).Draw(t, "appliers"), Readers: rapid.IntRange(2, 4).Draw(t, "readers"),
			Lease: ms("lease", 1, 5, 30, 1000), TTL: ms("ttl", 20, 200, 60_000), FenceTTL: ms("fences", 5, 50, 120_000),
			LongEvery: among("long", 3, 10, 50), LateEvery: among("late", 3, 10, 50), RepeatEvery: among("repeated", 1, 3, 20),
			DelayEvery: among("delayed", 5, 20, 100), KillEvery: among("killed", 10, 40),
			FlushEvery: ms("flushed", 200, 1000), FenceEvery: ms("fenced", 20, 100, 1000),
		}
	})
}

// one reports whether it is the turn of one of so many.
func oneOf(many int) bool { return rand.IntN(many) == 0 }

// linger passes a random time, mostly a short one: nothing announces "at random".
func linger(most time.Duration) {
	time.Sleep(time.Duration(float64(most) * rand.Float64() * rand.Float64() * rand.Float64()))
}

// straits is the way to Redis: what takes it may be late, and the replies too. It
// counts what takes it.
type straits struct {
	delayEvery int
	passed     *atomic.Int64
}

// longest is how late something may be: longer than most leases.
const longestInterleavingDelay = 80 * time.Millisecond

func (s straits) delay() {
	if oneOf(s.delayEvery) {
		linger(longestInterleavingDelay)
	}
}

// DialHook implements redis.Hook.
func (s straits) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (s straits) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		s.delay()
		defer s.delay()
		switch cmd.Name() {
		case "get", "set", "del":
			s.passed.Add(1)
		}
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements redis.Hook. An operation of the store is one pipeline.
func (s straits) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		s.delay()
		defer s.delay()
		s.passed.Add(1)
		return next(ctx, cmds)
	}
}
